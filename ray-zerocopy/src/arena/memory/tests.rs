//! Tests of policies on mappings that arenas do not have. `tests/tests/memory_policy.rs` has those
//! that arenas have.

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

/// Returns whether the kernel is older than a version of Linux.
fn is_before(version: (u32, u32)) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    (parts.next().unwrap(), parts.next().unwrap()) < version
}

fn unsupported(of: usize, call: &str, since: &str) -> PolicyStatus {
    let why = Obstacle::Unsupported { call: format!("madvise({call})"), since: since.to_owned() };
    PolicyStatus::NotApplied { of: of as u64, why: vec![why] }
}

/// Returns the expected status of prefaulting this number of bytes.
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
fn mapping_is_huge_page_aligned_if_large() {
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
fn dropped_mapping_leaves_nothing_behind() {
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

    // Reservations of address space are released completely: 1000 of them exceed the mappings by
    // 2 GiB.
    let size = || field(&std::fs::read_to_string("/proc/self/status").unwrap(), "VmSize:");
    let before = size();
    for _ in 0..1000 {
        drop(Mapping::open(&fd, len).unwrap());
    }
    let growth = size().saturating_sub(before);
    assert!(growth < 1 << 30, "{growth}");
}

#[test]
fn unaligned_mapping_reports_its_obstacle() {
    let len = 2 * HUGE_PAGE;
    let askew = Pages::askew(sealed(len).as_fd(), len).unwrap();
    assert!(!askew.is_aligned());
    let regions = Regions::new(vec![askew]);
    let expected = PolicyStatus::NotApplied { of: len as u64, why: vec![Obstacle::NotAligned] };
    assert_eq!(regions.apply(now()).huge_pages, expected);
    // A thread is not started if huge pages are impossible. A process that only maps them reports
    // the same obstacle as one that creates them.
    assert_eq!(regions.apply(MemoryPolicy::default().huge_pages(HugePages::Background)).huge_pages, expected);
    let follower = Regions::new(vec![Pages::askew(sealed(len).as_fd(), len).unwrap()]);
    assert_eq!(follower.follow(now()).huge_pages, expected);
    // The other policies do not depend on the alignment.
    assert_eq!(regions.apply(MemoryPolicy::default().prefault(true)).prefault, prefaulted(len));
}

/// A private mapping is the fallback if the kernel refuses a shared one. Its pages are those of the
/// file too, and policies apply to them.
#[test]
fn private_map_has_no_copy_and_takes_policies() {
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
fn region_below_a_huge_page_has_its_obstacle() {
    let regions = Regions::new(vec![pages(5000)]);
    for when in [HugePages::Now, HugePages::Background] {
        let outcome = regions.apply(MemoryPolicy::default().huge_pages(when));
        assert_eq!(
            outcome.huge_pages,
            PolicyStatus::NotApplied { of: 0, why: vec![Obstacle::Smaller { bytes: 5000 }] }
        );
        assert_eq!(outcome.to_string(), "huge pages: not applied (5000 bytes are less than a huge page of 2 MiB)");
    }
}

#[test]
fn several_regions_add_up() {
    let (small, large) = (5000, 2 * HUGE_PAGE + 100);
    let regions = Regions::new(vec![pages(small), pages(large)]);
    let outcome = regions.apply(now().prefault(true));
    assert_eq!(outcome.prefault, prefaulted(small + large));
    // The small region does not count: only whole blocks do.
    match &outcome.huge_pages {
        PolicyStatus::Applied { bytes } => assert_eq!(*bytes, 2 * HUGE_PAGE as u64),
        other => {
            assert!(!other.why().is_empty(), "{other}");
            eprintln!("skipped: this kernel does not create huge pages for memfds: {other}");
        }
    }
    assert_eq!(outcome.lock, PolicyStatus::NotAsked);

    // With one misaligned mapping, the policy is applied to a part.
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
    // Some file systems cache files in huge pages by themselves, and others do not support them.
    // The figure decides.
    match &outcome.huge_pages {
        PolicyStatus::Applied { bytes: found } => assert_eq!(*found, bytes.len() as u64),
        other => assert!(!other.why().is_empty(), "{other}"),
    }
}

#[test]
fn background_thread_does_not_keep_mappings() {
    let map = pages(2 * HUGE_PAGE);
    let weak = map.downgrade();
    let thread = Background::start(std::slice::from_ref(&map)).unwrap();
    while !thread.has_ended() {
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(map);
    assert!(weak.upgrade().is_none());
    // A dropped mapping is skipped.
    assert_eq!(collapse_while_there(&weak), []);
}

#[test]
fn owner_stays_owner_when_it_follows() {
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
fn policies_are_merged() {
    let first = now().prefault(true);
    let both = first.and(MemoryPolicy::default().lock(true));
    assert_eq!(both, first.lock(true));
    assert_eq!(both.and(MemoryPolicy::default().huge_pages(HugePages::Background)).huge_pages, HugePages::Background);
    assert_eq!(first.lock(true).once(), now());
    let replicas = MemoryPolicy::default().replicas(Replicas::PerNumaNode);
    assert_eq!([replicas.and(first).replicas, replicas.once().replicas], [Replicas::PerNumaNode; 2]);
    assert_eq!(first.and(first).replicas, Replicas::One);
}

#[test]
fn policies_do_not_apply_to_an_object_store() {
    let store = Regions::new(Vec::new()).of_a_store(100);
    let status = store.apply(MemoryPolicy::default().lock(true).replicas(Replicas::PerNumaNode));
    let expected = PolicyStatus::NotApplied { of: 100, why: vec![Obstacle::InStore] };
    assert_eq!([&status.lock, &status.replicas], [&expected, &expected]);
    assert_eq!(status.prefault, PolicyStatus::NotAsked);
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
        ..MemoryStatus::default()
    };
    assert_eq!(
        outcome.to_string(),
        "huge pages: partly applied, 62.0 of 64.0 MiB (madvise(MADV_COLLAPSE): Cannot allocate memory (os error 12); \
         there was no free block of 2 MiB: memory is full or fragmented); \
         prefault: not applied (the kernel does not support madvise(MADV_POPULATE_READ): it is older than Linux 5.14, \
         or built without it); \
         lock: not applied (the process may lock 8.0 MiB, has locked 0.0 MiB, and needs 65.0 MiB more; \
         raise `ulimit -l`, or LimitMEMLOCK= of the service)"
    );
    assert!(outcome.is_asked() && !outcome.is_applied());
    assert_eq!(PolicyStatus::new(Ok(3), 3, vec![Obstacle::Unmapped]), PolicyStatus::Applied { bytes: 3 });
    assert_eq!(PolicyStatus::new(Ok(1), 3, vec![]).why(), [Obstacle::Unmapped]);
    let unknown = PolicyStatus::new(Err("/proc is not there".to_owned()), 3, vec![]);
    assert_eq!(unknown.to_string(), "unknown (/proc is not there)");
    assert_eq!(MemoryStatus::default().to_string(), "no policy requested");
    assert!(MemoryStatus::default().is_applied());
    // A worker sends the status as MessagePack.
    let bytes = crate::codec::encode(&outcome).unwrap();
    assert_eq!(crate::codec::decode::<MemoryStatus>(&bytes).unwrap(), outcome);
}

#[test]
fn locked_bytes_follow_the_vm_flags() {
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
