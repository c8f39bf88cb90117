//! The kernel's figures of workers that map a base and its variants.

use std::collections::BTreeSet;
use std::os::fd::AsFd;

use burn::tensor::Device;
use ray_zerocopy::{Arena, LocalPool, TaskWrapper, load, report, share};
use ray_zerocopy_tests::memory::{eventually, mapped};

use crate::speech::{Speech, SpeechConfig, inode};

/// 64 MiB in 16 layers.
const LARGE: SpeechConfig = SpeechConfig { layers: 16, size: 1024 };
const MIB: u64 = 1 << 20;

/// The memory that the kernel has given to an arena's memfd.
fn allocated(arena: &Arena) -> u64 {
    rustix::fs::fstat(arena.fd().unwrap().as_fd()).unwrap().st_blocks.cast_unsigned() * 512
}

/// The sum of a figure over all processes that map a memfd.
fn sum(pids: &BTreeSet<u32>, inode: u64, field: &str) -> u64 {
    pids.iter().flat_map(|&pid| mapped(pid, inode)).map(|mapping| mapping.figure(field)).sum()
}

#[test]
fn variant_costs_the_tensor_that_differs() {
    let mut pipeline = LARGE.init(&Device::flex());
    let base = share(&pipeline).unwrap();
    pipeline.body[7] = LARGE.layer();
    let tuned = base.variant(&pipeline).unwrap();
    let layer = LARGE.layer_bytes();
    assert!((64 * MIB..66 * MIB).contains(&allocated(&base)), "{}", allocated(&base));
    assert!((layer..layer + MIB).contains(&allocated(&tuned)), "{}", allocated(&tuned));

    // This process maps the base once, whatever it loads.
    let loaded = [&base, &tuned].map(|arena| load::<Speech>(arena, &Device::flex()).unwrap());
    let sums = loaded.each_ref().map(|pipeline| pipeline.sums());
    assert_ne!(sums[0], sums[1]);
    let this = BTreeSet::from([std::process::id()]);
    assert_eq!(mapped(std::process::id(), inode(&base)).len(), 1);
    let [rss, own] = [inode(&base), inode(&tuned)].map(|inode| sum(&this, inode, "Rss"));
    assert!((64 * MIB..66 * MIB).contains(&rss) && (layer..layer + MIB).contains(&own), "{rss} {own}");
}

#[test]
fn workers_on_a_base_and_two_variants_hold_the_base_once() {
    let mut pipeline = LARGE.init(&Device::flex());
    let base = share(&pipeline).unwrap();
    pipeline.body[0] = LARGE.layer();
    let first = base.variant(&pipeline).unwrap();
    pipeline.body[1] = LARGE.layer();
    let second = first.variant(&pipeline).unwrap();
    drop(pipeline);

    let pool = LocalPool::builder().workers(4).start().unwrap();
    let arenas = [&base, &first, &second];
    let tasks = arenas.map(|arena| TaskWrapper::<Speech>::from_arena_on(&pool, arena.clone()).unwrap());
    let mut workers = BTreeSet::new();
    for tasks in &tasks {
        let expected = tasks.load().unwrap().sums();
        eventually("each worker has loaded it", || {
            let calls: Vec<_> = (0..4).map(|_| tasks.read_and_wait(200)).collect();
            let answers: Vec<_> = calls.into_iter().map(|call| call.wait().unwrap()).collect();
            assert!(answers.iter().all(|(_, sums)| *sums == expected));
            let pids: BTreeSet<u32> = answers.into_iter().map(|(pid, _)| pid).collect();
            workers.extend(&pids);
            pids.len() == 4
        });
    }
    assert_eq!(workers.len(), 4);
    let mut all = workers.clone();
    all.insert(std::process::id());
    for &pid in &workers {
        let mappings = arenas.map(|arena| mapped(pid, inode(arena)).len());
        assert_eq!(mappings, [1, 1, 1], "a base, and what each variant stores");
    }
    let rss = sum(&workers, inode(&base), "Rss");
    assert!(rss > 4 * 63 * MIB, "each of the four reads the base: {rss}");
    let pss: u64 = arenas.iter().map(|arena| sum(&all, inode(arena), "Pss")).sum();
    let layer = LARGE.layer_bytes();
    assert!(pss < 64 * MIB + 2 * layer + 4 * MIB, "{pss}");

    // The reports count the base once, and tell the variants from it.
    let scan = report::scan().unwrap();
    let own = |arena: &Arena| {
        let found = scan.arenas.iter().find(|found| found.inode == inode(arena)).unwrap();
        assert!(workers.iter().all(|pid| found.processes.iter().any(|process| process.pid == *pid)));
        let bases: Vec<_> = found.contents.as_ref().unwrap().bases().map(|(id, _)| id).collect();
        let shared = found.processes.iter().find(|process| workers.contains(&process.pid)).unwrap().shared;
        (bases, shared)
    };
    let (bases, shared) = own(&first);
    assert_eq!(bases, [base.id()]);
    assert!(shared < layer + MIB, "{shared}");
    assert!(own(&base).1 > 60 * MIB);
    let report = tasks[1].report().unwrap().to_string();
    assert!(report.contains(&base.id().to_string()), "{report}");
}
