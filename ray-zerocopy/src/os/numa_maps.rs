//! On which NUMA nodes the pages of a mapping are, from `/proc/<pid>/numa_maps`.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;

/// Bytes on each node.
pub(crate) type BytesByNode = BTreeMap<u32, u64>;

/// Returns the bytes of mappings that a process has in its page table, by node. `process` is a process id or
/// `self`. The error is the reason why they cannot be read, which is missing support of the kernel or a
/// missing permission.
pub(crate) fn bytes_by_node(process: &str, mappings: &[Range<usize>]) -> Result<BytesByNode, String> {
    let path = format!("/proc/{process}/numa_maps");
    let text = fs::read_to_string(&path).map_err(|error| format!("{path} cannot be read: {error}"))?;
    Ok(sum(&text, mappings))
}

/// Sums the pages of the mappings that begin in one of the ranges. The lines are
/// `7f00 default file=/x mapped=3 N0=2 N1=1 kernelpagesize_kB=4`.
fn sum(text: &str, mappings: &[Range<usize>]) -> BytesByNode {
    let mut sums = BytesByNode::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let start = words.next().and_then(|word| usize::from_str_radix(word, 16).ok());
        let is_ours = start.is_some_and(|start| mappings.iter().any(|mapping| mapping.contains(&start)));
        let page =
            line.split_whitespace().find_map(|word| word.strip_prefix("kernelpagesize_kB=")?.parse::<u64>().ok());
        let (true, Some(page)) = (is_ours, page) else { continue };
        for word in words {
            let pages = word.strip_prefix('N').and_then(|rest| rest.split_once('='));
            if let Some((Ok(node), Ok(pages))) = pages.map(|(node, pages)| (node.parse(), pages.parse::<u64>())) {
                *sums.entry(node).or_default() += pages * page * 1024;
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::{BytesByNode, bytes_by_node, sum};

    const TEXT: &str = "\
559d13b0b000 default file=/usr/bin/N0=7 mapped=2 N0=2 kernelpagesize_kB=4
7f0000200000 prefer:1 file=/memfd:ray-zerocopy\\040(deleted) dirty=5 mapped=5 active=0 N0=1 N1=4 kernelpagesize_kB=4
7f0000400000 default file=/memfd:ray-zerocopy\\040(deleted) N1=512 kernelpagesize_kB=4
7f0000600000 default
7f0000800000 default N0=x Nx=1 kernelpagesize_kB=4
";

    #[test]
    fn pages_of_the_mappings_are_summed() {
        let of = |mappings: &[std::ops::Range<usize>]| sum(TEXT, mappings);
        assert_eq!(of(from_ref(&(0x7f00_0020_0000..0x7f00_0030_0000))), BytesByNode::from([(0, 4096), (1, 4 * 4096)]));
        let both = [0x7f00_0020_0000..0x7f00_0020_1000, 0x7f00_0040_0000..0x7f00_00a0_0000];
        assert_eq!(of(&both), BytesByNode::from([(0, 4096), (1, 516 * 4096)]));
        assert_eq!(of(from_ref(&(0x1000..0x2000))), BytesByNode::new());
    }

    #[test]
    #[cfg_attr(miri, ignore = "reads /proc")]
    fn memory_of_this_process_is_on_a_node() {
        let page = vec![1_u8; 1 << 20];
        let start = page.as_ptr() as usize;
        match bytes_by_node("self", from_ref(&(0..usize::MAX))) {
            Ok(found) => assert!(found.values().sum::<u64>() >= 1 << 20, "{found:?} {start:x}"),
            // The kernel does not support NUMA.
            Err(reason) => assert!(reason.starts_with("/proc/self/numa_maps cannot be read"), "{reason}"),
        }
        assert!(bytes_by_node("0", &[]).is_err());
    }
}
