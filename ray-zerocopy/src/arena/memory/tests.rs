//! Policies on mappings that no arena would have. `tests/tests/memory_policy.rs` has those that arenas do have.

use crate::os::smaps::field;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use super::*;
use crate::arena::io::write_at;
use crate::os::sys::mapping::Mapping;
use crate::os::sys::memfd::{create, seal};

fn sealed(len: usize) -> OwnedFd {
    let fd = create("ray-zerocopy-test", len as u64).unwrap();
    let bytes: Vec<u8> = (0..251_u8).cycle().take(len).collect();
    write_at(&fd, &bytes, 0).unwrap();
    seal(fd).unwrap()
}

fn pages(len: usize) -> Pages {
    Mapping::open(sealed(len), len).unwrap().pages()
}

/// Whether the kernel is older than a version of Linux.
fn is_before(version: (u32, u32)) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    (parts.next().unwrap(), parts.next().unwrap()) < version
}

fn unsupported(of: usize, call: &str, since: &str) -> PolicyStatus {
    let why = Obstacle::Unsupported { call: format!("madvise({call})"), since: since.to_owned() };
    PolicyStatus::NotApplied { of: of as u64, why: vec![why] }
}

/// What becomes of so many bytes that are to be prefaulted.
fn prefaulted(bytes: usize) -> PolicyStatus {
    if is_before((5, 14)) {
        return unsupported(bytes, "MADV_POPULATE_READ", "5.14");
    }
    PolicyStatus::Applied { bytes: bytes as u64 }
}

fn now() -> MemoryPolicy {
    MemoryPolicy::default().huge_pages(HugePages::Now)
}

#[test]
fn what_can_have_huge_pages_begins_where_they_may() {
    for (len, aligned) in [
        (1, None),
        (HUGE_PAGE - 1, None),
        (HUGE_PAGE, Some(true)),
        (HUGE_PAGE + 1, Some(true)),
        (9_000_001, Some(true)),
    ] {
        let map = Mapping::open(sealed(len), len).unwrap();
        assert!(aligned.is_none_or(|aligned| map.pages().is_aligned() == aligned), "{len}");
        assert_eq!(map.pages().addresses().len(), len);
        assert!(map.as_ref().iter().zip((0..251_u8).cycle()).all(|(found, expected)| *found == expected), "{len}");
    }
}

#[test]
fn a_mapping_that_goes_leaves_nothing_behind() {
    let len = 2 * HUGE_PAGE + 5;
    let fd = sealed(len);
    let inode = format!(" {} ", rustix::fs::fstat(&fd).unwrap().st_ino);
    let mapped = || std::fs::read_to_string("/proc/self/maps").unwrap().matches(&inode).count();
    let map = Mapping::open(&fd, len).unwrap().pages();
    let kept = map.clone();
    drop(map);
    assert_eq!(mapped(), 1);
    drop(kept);
    assert_eq!(mapped(), 0);

    // Nor does any part of the reservations stay: 1000 of them have 2 GiB more than the maps.
    let size = || field(&std::fs::read_to_string("/proc/self/status").unwrap(), "VmSize:");
    let before = size();
    for _ in 0..1000 {
        drop(Mapping::open(&fd, len).unwrap());
    }
    let growth = size().saturating_sub(before);
    assert!(growth < 1 << 30, "{growth}");
}

#[test]
fn a_mapping_at_any_page_says_why_it_has_no_huge_pages() {
    let len = 2 * HUGE_PAGE;
    let askew = Pages::askew(sealed(len).as_fd(), len).unwrap();
    assert!(!askew.is_aligned());
    let regions = Regions::new(vec![askew]);
    let expected = PolicyStatus::NotApplied { of: len as u64, why: vec![Obstacle::NotAligned] };
    assert_eq!(regions.apply(now()).huge_pages, expected);
    // No thread is started for what cannot be, and one that follows knows it as well as one that makes them.
    assert_eq!(regions.apply(MemoryPolicy::default().huge_pages(HugePages::Background)).huge_pages, expected);
    let follower = Regions::new(vec![Pages::askew(sealed(len).as_fd(), len).unwrap()]);
    assert_eq!(follower.follow(now()).huge_pages, expected);
    // The other policies do not ask for an address.
    assert_eq!(regions.apply(MemoryPolicy::default().prefault(true)).prefault, prefaulted(len));
}

/// As where a shared map is refused: the pages are the file's all the same, and policies apply to them.
#[test]
fn a_private_map_costs_nothing_and_takes_policies() {
    let len = 2 * HUGE_PAGE;
    let fd = sealed(len);
    let shared = Mapping::open(&fd, len).unwrap();
    let private = Pages::private(fd.as_fd(), len).unwrap();
    assert!(private.is_aligned());
    let regions = Regions::new(vec![private.clone()]);
    let outcome = regions.apply(now().prefault(true));
    assert_eq!(outcome.prefault, prefaulted(len));
    assert!(outcome.huge_pages.bytes() == len as u64 || !outcome.huge_pages.why().is_empty(), "{outcome}");
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let start = format!("{:x}-", private.addresses().start);
    let own: Vec<_> = smaps.lines().skip_while(|line| !line.starts_with(&start)).take(25).collect();
    assert!(
        own[0].contains(" r--p ") && own.iter().any(|line| line.starts_with("Anonymous:") && line.ends_with(" 0 kB"))
    );
    drop(shared);
}

#[test]
fn less_than_a_huge_page_is_said_to_be() {
    let regions = Regions::new(vec![pages(5000)]);
    for when in [HugePages::Now, HugePages::Background] {
        let outcome = regions.apply(MemoryPolicy::default().huge_pages(when));
        assert_eq!(
            outcome.huge_pages,
            PolicyStatus::NotApplied { of: 0, why: vec![Obstacle::Smaller { bytes: 5000 }] }
        );
        assert_eq!(outcome.to_string(), "huge pages: not (there are 5000 bytes, and a huge page has 2 MiB)");
    }
}

#[test]
fn several_regions_add_up() {
    let (small, large) = (5000, 2 * HUGE_PAGE + 100);
    let regions = Regions::new(vec![pages(small), pages(large)]);
    let outcome = regions.apply(now().prefault(true));
    assert_eq!(outcome.prefault, prefaulted(small + large));
    // The small region takes nothing from what could be: whole blocks count.
    match &outcome.huge_pages {
        PolicyStatus::Applied { bytes } => assert_eq!(*bytes, 2 * HUGE_PAGE as u64),
        other => {
            assert!(!other.why().is_empty(), "{other}");
            eprintln!("skipped: this kernel makes no huge pages of memfds: {other}");
        }
    }
    assert_eq!(outcome.lock, PolicyStatus::NotAsked);

    // With one at any page among them, it is a part.
    let askew = Pages::askew(sealed(HUGE_PAGE).as_fd(), HUGE_PAGE).unwrap();
    let regions = Regions::new(vec![pages(HUGE_PAGE), askew]);
    let outcome = regions.apply(now()).huge_pages;
    assert!(outcome.why().contains(&Obstacle::NotAligned), "{outcome}");
    assert!(outcome.bytes() <= HUGE_PAGE as u64);
}

#[test]
fn a_file_says_what_its_file_system_can() {
    let mut file = std::fs::OpenOptions::new();
    let path = std::env::temp_dir().join(format!("ray-zerocopy-policy-{}", std::process::id()));
    let mut file = file.read(true).write(true).create_new(true).open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let bytes: Vec<u8> = (0..251_u8).cycle().take(2 * HUGE_PAGE).collect();
    file.write_all(&bytes).unwrap();
    let regions = Regions::new(vec![Pages::of(&file, bytes.len()).unwrap()]);
    let outcome = regions.apply(now().prefault(true));
    assert_eq!(outcome.prefault, prefaulted(bytes.len()));
    // Some file systems cache files in huge pages by themselves, others cannot; the figure decides.
    match &outcome.huge_pages {
        PolicyStatus::Applied { bytes: found } => assert_eq!(*found, bytes.len() as u64),
        other => assert!(!other.why().is_empty(), "{other}"),
    }
}

#[test]
fn the_background_keeps_nobody_alive() {
    let map = pages(2 * HUGE_PAGE);
    let weak = map.downgrade();
    let thread = Background::start(std::slice::from_ref(&map)).unwrap();
    while !thread.has_ended() {
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(map);
    assert!(weak.upgrade().is_none());
    // What is gone is not looked for.
    assert_eq!(collapse_while_there(&weak), []);
}

#[test]
fn the_maker_does_not_forget_that_it_is() {
    let regions = Regions::new(vec![pages(HUGE_PAGE)]);
    regions.apply(now());
    let before = regions.outcome().huge_pages;
    assert_eq!(regions.follow(now()).huge_pages, before);
    assert!(!before.why().contains(&Obstacle::LeftToOwner));

    let follower = Regions::new(vec![pages(HUGE_PAGE)]);
    assert_eq!(follower.follow(MemoryPolicy::default()), MemoryStatus::default());
    let left = follower.follow(now()).huge_pages;
    let expected = PolicyStatus::NotApplied { of: HUGE_PAGE as u64, why: vec![Obstacle::LeftToOwner] };
    assert_eq!(left, if is_before((6, 1)) { unsupported(HUGE_PAGE, "MADV_COLLAPSE", "6.1") } else { expected });
}

#[test]
fn what_was_asked_stays_asked() {
    let first = now().prefault(true);
    let both = first.and(MemoryPolicy::default().lock(true));
    assert_eq!(both, first.lock(true));
    assert_eq!(both.and(MemoryPolicy::default().huge_pages(HugePages::Background)).huge_pages, HugePages::Background);
    assert_eq!(first.lock(true).once(), now());
}

#[test]
fn outcomes_can_be_read() {
    let mib = |mib: u64| mib << 20;
    let outcome = MemoryStatus {
        huge_pages: PolicyStatus::new(
            Ok(mib(62)),
            mib(64),
            vec![Obstacle::refused("madvise(MADV_COLLAPSE)", &io::Error::from_raw_os_error(libc::ENOMEM))],
        ),
        prefault: PolicyStatus::new(
            Ok(0),
            mib(65),
            vec![Obstacle::Unsupported { call: "madvise(MADV_POPULATE_READ)".to_owned(), since: "5.14".to_owned() }],
        ),
        lock: PolicyStatus::new(
            Ok(0),
            mib(65),
            vec![Obstacle::MemlockLimit { limit: mib(8), locked: 0, needed: mib(65) }],
        ),
        took: Duration::ZERO,
    };
    assert_eq!(
        outcome.to_string(),
        "huge pages: partly, 62.0 of 64.0 MiB (madvise(MADV_COLLAPSE): Cannot allocate memory (os error 12); there was \
         no free block of 2 MiB: memory is full or fragmented); \
         prefault: not (the kernel lacks madvise(MADV_POPULATE_READ): it is before Linux 5.14, or built without it); \
         lock: not (the process may lock 8.0 MiB, has 0.0 locked, and needs 65.0 more; raise `ulimit -l`, or \
         LimitMEMLOCK= of the service)"
    );
    assert!(outcome.is_asked() && !outcome.is_applied());
    assert_eq!(PolicyStatus::new(Ok(3), 3, vec![Obstacle::Unmapped]), PolicyStatus::Applied { bytes: 3 });
    assert_eq!(PolicyStatus::new(Ok(1), 3, vec![]).why(), [Obstacle::Unmapped]);
    let unknown = PolicyStatus::new(Err("/proc is not there".to_owned()), 3, vec![]);
    assert_eq!(unknown.to_string(), "unknown (/proc is not there)");
    assert_eq!(MemoryStatus::default().to_string(), "nothing asked");
    assert!(MemoryStatus::default().is_applied());
    // A worker says it in MessagePack.
    let bytes = crate::codec::encode(&outcome).unwrap();
    assert_eq!(crate::codec::decode::<MemoryStatus>(&bytes).unwrap(), outcome);
}

#[test]
fn locked_is_what_the_flags_say() {
    const SMAPS: &str = "\
7f0000000000-7f0000400000 r--s 00000000 00:01 4711                       /memfd:ray-zerocopy (deleted)
Rss:                4096 kB
Pss:                1024 kB
ShmemPmdMapped:     2048 kB
FilePmdMapped:         0 kB
Locked:             1024 kB
VmFlags: rd sh mr lo
7f0000400000-7f0000800000 r--s 00000000 00:01 4712                       /memfd:ray-zerocopy (deleted)
Rss:                2048 kB
Pss:                2048 kB
FilePmdMapped:      2048 kB
VmFlags: rd sh mr
";
    let all = figures(SMAPS, |_| true);
    assert_eq!(all, Figures { rss: 6 << 20, pss: 3 << 20, huge: 4 << 20, locked: 4 << 20 });
    let second = figures(SMAPS, |line| mapping_of(line).is_some_and(|found| found.start == 0x7f00_0040_0000));
    assert_eq!(second, Figures { rss: 2 << 20, pss: 2 << 20, huge: 2 << 20, locked: 0 });
    assert_eq!(figures("Rss: 4 kB\nVmFlags: lo\n", |_| true), Figures::default());
}
