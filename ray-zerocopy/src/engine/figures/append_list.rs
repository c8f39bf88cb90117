//! A list that only grows, and is read without a lock: for a few entries that are looked up often.

use std::sync::OnceLock;

/// A list of a few entries. Entries are never removed.
#[derive(Debug)]
pub(super) struct AppendList<T>(OnceLock<Box<Node<T>>>);

#[derive(Debug)]
struct Node<T> {
    value: T,
    next: AppendList<T>,
}

impl<T> Default for AppendList<T> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<T> AppendList<T> {
    /// Returns the entry for which `is_it` holds. Makes it if there is none.
    pub(super) fn find_or_add(&self, is_it: impl Fn(&T) -> bool, make: impl Fn() -> T) -> &T {
        let mut list = self;
        loop {
            // Another thread may add an entry here first, which may be another one.
            let node = list.0.get_or_init(|| Box::new(Node { value: make(), next: Self::default() }));
            if is_it(&node.value) {
                return &node.value;
            }
            list = &node.next;
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        let mut list = self;
        std::iter::from_fn(move || {
            let node = list.0.get()?;
            list = &node.next;
            Some(&node.value)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::AppendList;

    #[test]
    fn entries_are_made_once_and_keep_their_order() {
        let list = AppendList::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    (0..50).for_each(|value| assert_eq!(*list.find_or_add(|old| *old == value, || value), value))
                });
            }
        });
        let mut entries: Vec<_> = list.iter().copied().collect();
        assert_eq!(entries.len(), 50);
        entries.sort_unstable();
        assert!(entries.into_iter().eq(0..50));
    }
}
