//! A value for each process.
//!
//! A fork copies all memory and none of the threads. A lock that another thread held at the fork
//! stays locked in the child, and work assigned to another thread never happens there. So state
//! that depends on threads belongs to the process that started them.

use std::sync::OnceLock;

use crate::os::sys::process_id::process_id;

/// A value for each process: created by the first access in a process, and again by the first
/// access in a fork.
pub(crate) struct PerProcess<T> {
    first: OnceLock<Box<Node<T>>>,
}

struct Node<T> {
    process: u32,
    value: T,
    /// The node of a fork.
    next: OnceLock<Box<Node<T>>>,
}

impl<T: Default> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        Self { first: OnceLock::new() }
    }

    /// Returns this process's value. Creates it if needed.
    pub(crate) fn get(&self) -> &T {
        let process = process_id();
        let make = || Box::new(Node { process, value: T::default(), next: OnceLock::new() });
        let mut node = self.first.get_or_init(make);
        // Forks of forks: one node for each generation.
        while node.process != process {
            node = node.next.get_or_init(make);
        }
        &node.value
    }

    /// Returns this process's value, or `None` if it has not been created.
    pub(crate) fn existing(&self) -> Option<&T> {
        let process = process_id();
        let mut node = self.first.get()?;
        while node.process != process {
            node = node.next.get()?;
        }
        Some(&node.value)
    }
}
