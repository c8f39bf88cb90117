//! A value for each process.
//!
//! A fork has copies of all memory and none of the threads. A lock that another thread held at the fork stays locked in the child, and
//! what a thread was to do never happens. So what depends on threads belongs to the process that started them.

use std::sync::OnceLock;

/// A value for each process: the first that asks in a process makes it, and a fork makes one of its own.
pub(crate) struct PerProcess<T> {
    first: OnceLock<Box<Node<T>>>,
}

struct Node<T> {
    process: u32,
    value: T,
    /// That of a fork.
    next: OnceLock<Box<Node<T>>>,
}

impl<T: Default> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        Self { first: OnceLock::new() }
    }

    /// This process's value.
    pub(crate) fn get(&self) -> &T {
        let process = std::process::id();
        let make = || Box::new(Node { process, value: T::default(), next: OnceLock::new() });
        let mut node = self.first.get_or_init(make);
        // Forks of forks: as many as there are generations.
        while node.process != process {
            node = node.next.get_or_init(make);
        }
        &node.value
    }

    /// This process's value, if it has one.
    pub(crate) fn existing(&self) -> Option<&T> {
        let process = std::process::id();
        let mut node = self.first.get()?;
        while node.process != process {
            node = node.next.get()?;
        }
        Some(&node.value)
    }
}
