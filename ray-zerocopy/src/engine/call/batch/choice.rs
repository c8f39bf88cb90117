//! Selects the calls of the next batch.

use std::collections::VecDeque;

use super::batching::Batching;
use super::member::{Member, Size};

/// Takes the calls of the next batch from the queue: the oldest, and those with the same key that
/// fit. Calls whose rows cost about as much as the oldest one's are preferred, since a row is padded
/// to the length of the longest.
pub(super) fn choose(waiting: &mut VecDeque<Member>, limits: &Batching) -> Vec<Member> {
    let Some(oldest) = waiting.front() else { return Vec::new() };
    let mut total = Total::of(oldest.size);
    let candidates = waiting.iter().enumerate().skip(1).filter(|(_, member)| member.key == oldest.key);
    let mut candidates: Vec<_> = candidates.map(|(at, member)| (at, member.size)).collect();
    // A stable sort: among equals, the older come first.
    candidates.sort_by_key(|(_, size)| size.row_cost.abs_diff(oldest.size.row_cost));
    let mut chosen = vec![0];
    for (at, size) in candidates {
        if let Some(larger) = total.with(size, limits) {
            total = larger;
            chosen.push(at);
        }
        if total.rows >= limits.rows {
            break;
        }
    }
    if chosen.len() == waiting.len() {
        return std::mem::take(waiting).into();
    }
    chosen.sort_unstable();
    let mut taken = Vec::with_capacity(chosen.len());
    let mut left = VecDeque::with_capacity(waiting.len() - chosen.len());
    let mut chosen = chosen.into_iter().peekable();
    for (at, member) in std::mem::take(waiting).into_iter().enumerate() {
        if chosen.next_if_eq(&at).is_some() {
            taken.push(member);
        } else {
            left.push_back(member);
        }
    }
    *waiting = left;
    taken
}

/// Returns `true` if the oldest call and those with the same key fill a batch.
pub(super) fn is_full(waiting: &VecDeque<Member>, limits: &Batching) -> bool {
    let Some(oldest) = waiting.front() else { return false };
    let mut total = Total::of(oldest.size);
    if !total.fits(limits) {
        return true;
    }
    let mut others = waiting.iter().skip(1).filter(|member| member.key == oldest.key);
    total.rows >= limits.rows
        || others.any(|member| match total.with(member.size, limits) {
            Some(larger) => {
                total = larger;
                larger.rows >= limits.rows
            }
            None => true,
        })
}

/// Size of a batch.
#[derive(Clone, Copy)]
struct Total {
    rows: usize,
    bytes: usize,
    row_cost: usize,
}

impl Total {
    fn of(Size { rows, bytes, row_cost }: Size) -> Self {
        Self { rows, bytes, row_cost }
    }

    /// Adds a call. Returns `None` if that exceeds a limit.
    fn with(self, size: Size, limits: &Batching) -> Option<Self> {
        let rows = self.rows.checked_add(size.rows)?;
        let bytes = self.bytes.checked_add(size.bytes)?;
        let row_cost = self.row_cost.max(size.row_cost);
        Some(Self { rows, bytes, row_cost }).filter(|total| total.fits(limits))
    }

    fn fits(self, limits: &Batching) -> bool {
        let cost = self.rows.saturating_mul(self.row_cost);
        self.rows <= limits.rows && self.bytes <= limits.bytes && cost <= limits.cost
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Instant;

    use super::{choose, is_full};
    use crate::engine::call::batch::batching::Batching;
    use crate::engine::call::batch::member::{Member, Size};
    use crate::engine::call::waiter::Waiter;
    use crate::engine::message::Outgoing;
    use crate::engine::sys::entry::FnToken;

    /// A queue of calls with these rows, costs of a row, and keys.
    fn queue(calls: &[(usize, usize, u8)]) -> VecDeque<Member> {
        let member = |&(rows, row_cost, key): &(usize, usize, u8)| Member {
            args: Outgoing::default(),
            handler: FnToken::named("none"),
            size: Size { rows, bytes: 100 * rows, row_cost },
            key: vec![key],
            caller: Waiter::new("none", None, None, None, &std::sync::Arc::default(), Default::default()).0,
            since: Instant::now(),
        };
        calls.iter().map(member).collect()
    }

    fn costs(members: &[Member]) -> Vec<usize> {
        members.iter().map(|member| member.size.row_cost).collect()
    }

    #[test]
    fn oldest_call_is_always_taken() {
        let limits = Batching::default().max_rows(2);
        let mut waiting = queue(&[(100, 1, 0), (1, 1, 0)]);
        assert_eq!(choose(&mut waiting, &limits)[0].size.rows, 100);
        assert_eq!(choose(&mut waiting, &limits).len(), 1);
        assert!(choose(&mut waiting, &limits).is_empty());
    }

    #[test]
    fn calls_of_similar_cost_are_preferred() {
        let limits = Batching::default().max_rows(3);
        let mut waiting = queue(&[(1, 10, 0), (1, 90, 0), (1, 12, 0), (1, 80, 0), (1, 9, 0)]);
        assert_eq!(costs(&choose(&mut waiting, &limits)), [10, 12, 9]);
        assert_eq!(costs(&choose(&mut waiting, &limits)), [90, 80]);
    }

    #[test]
    fn limits_are_kept() {
        // The cost is that of the padded batch: 2 rows of 50 cost 100.
        let mut waiting = queue(&[(1, 50, 0), (1, 50, 0), (1, 50, 0)]);
        assert_eq!(choose(&mut waiting, &Batching::default().max_cost(100)).len(), 2);
        let mut waiting = queue(&[(1, 10, 0), (1, 40, 0), (1, 10, 0)]);
        assert_eq!(costs(&choose(&mut waiting, &Batching::default().max_cost(50))), [10, 10]);
        let mut waiting = queue(&[(1, 1, 0), (2, 1, 0), (1, 1, 0)]);
        assert_eq!(choose(&mut waiting, &Batching::default().max_bytes(299)).len(), 2);
    }

    #[test]
    fn calls_with_other_keys_wait() {
        let mut waiting = queue(&[(1, 1, 0), (1, 2, 1), (1, 3, 0)]);
        assert_eq!(costs(&choose(&mut waiting, &Batching::default())), [1, 3]);
        assert_eq!(costs(&choose(&mut waiting, &Batching::default())), [2]);
    }

    #[test]
    fn full_batch_does_not_wait() {
        let limits = Batching::default().max_rows(4).max_cost(40);
        assert!(!is_full(&queue(&[(1, 1, 0), (2, 1, 0)]), &limits));
        assert!(is_full(&queue(&[(1, 1, 0), (3, 1, 0)]), &limits));
        assert!(is_full(&queue(&[(1, 1, 0), (1, 30, 0)]), &limits));
        assert!(!is_full(&queue(&[(1, 1, 0), (3, 1, 1)]), &limits));
        assert!(!is_full(&queue(&[]), &limits));
    }
}
