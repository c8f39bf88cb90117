//! Property tests of pipelines and values, on random ones.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod tree;
mod wire;

use std::collections::BTreeMap;

use burn::tensor::Device;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use ray_zerocopy::{Arena, load, share};
use tree::{DTYPES, LayerKind, LayerSpec, Layout, Spec, TensorSpec, Tree};

/// The number of cases. The default takes seconds, and `PROPTEST_CASES` overrides it.
fn config(cases: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(cases);
    // The shrunk case is printed, so no file of seeds is written.
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 2000, ..ProptestConfig::default() }
}

/// Dimensions, some of which are zero.
fn shape() -> impl Strategy<Value = Vec<usize>> {
    vec(prop_oneof![1 => Just(0_usize), 3 => Just(1), 8 => 2..5_usize], 1..=5)
}

fn tensor() -> impl Strategy<Value = TensorSpec> {
    let layout = prop_oneof![
        3 => Just(Layout::Plain),
        1 => Just(Layout::Transposed),
        1 => Just(Layout::Sliced),
        1 => Just(Layout::Expanded),
        1 => Just(Layout::Flipped),
    ];
    (prop::sample::select(DTYPES.to_vec()), shape(), layout, any::<u64>(), any::<bool>()).prop_map(
        |(dtype, mut shape, layout, seed, tied)| {
            // burn cannot expand to zero elements.
            if matches!(layout, Layout::Expanded) {
                shape.iter_mut().for_each(|dim| *dim = (*dim).max(1));
            }
            TensorSpec { dtype, shape, layout, seed, tied }
        },
    )
}

fn layer() -> impl Strategy<Value = LayerSpec> {
    let kind = prop_oneof![
        4 => (any::<bool>(), any::<bool>()).prop_map(|(bias, column)| LayerKind::Linear { bias, column }),
        1 => Just(LayerKind::Quantised),
        1 => Just(LayerKind::Norm),
        1 => Just(LayerKind::Embedding),
        1 => Just(LayerKind::Conv),
        1 => Just(LayerKind::Dropout),
        1 => Just(LayerKind::Nothing),
    ];
    (kind, (1..9_usize, 1..9_usize), any::<bool>()).prop_map(|(kind, sizes, tied)| LayerSpec { kind, sizes, tied })
}

/// Any text as a key: quotes, dots, brackets, or empty.
fn key() -> impl Strategy<Value = String> {
    prop_oneof!["[a-c]{1,3}", "[\"\\[\\].\\\\ ü]{0,3}", "\\PC{0,6}"]
}

fn spec() -> impl Strategy<Value = Spec> {
    let table = btree_map(key(), vec(any::<f64>(), 0..3), 0..3);
    let leaf = (
        vec(tensor(), 0..4),
        btree_map(key(), tensor(), 0..2),
        btree_map(key(), 0..5_usize, 0..2),
        prop::option::of((0..4_usize, 1..4_usize)),
        vec(layer(), 0..4),
        "\\PC{0,8}",
        table,
    )
        .prop_map(|(tensors, named, masks, matrix, layers, note, table)| Spec {
            tensors,
            named,
            masks,
            matrix,
            layers,
            note,
            table,
            ..Spec::default()
        });
    leaf.prop_recursive(3, 10, 3, |inner| {
        let below = (
            vec(inner.clone(), 0..3),
            btree_map(key(), inner.clone(), 0..2),
            btree_map(any::<i32>(), inner.clone(), 0..2),
            prop::option::of(inner.clone()),
        );
        (inner, below).prop_map(|(mut spec, (children, by_name, by_number, maybe))| {
            (spec.children, spec.by_name, spec.by_number) = (children, by_name, by_number);
            spec.maybe = maybe.map(Box::new);
            spec
        })
    })
}

/// A loaded pipeline is bit-identical with the shared one, borrows all its tensors, and is shared
/// to an equal arena.
fn comes_back(spec: &Spec) -> Result<(), TestCaseError> {
    let tree = spec.filled();
    let before = tree.find();
    let arena = share(&tree).map_err(|error| TestCaseError::fail(error.to_string()))?;
    arena.verify().map_err(|error| TestCaseError::fail(error.to_string()))?;
    prop_assert_eq!(arena.tensors().count(), before.len());

    let twin = load::<Tree>(&arena, &Device::flex()).map_err(|error| TestCaseError::fail(error.to_string()))?;
    prop_assert_eq!(twin.copied(), []);
    let after = twin.find();
    prop_assert_eq!(after.len(), before.len());
    for (here, there) in before.iter().zip(&after) {
        prop_assert!(here.same_as(there), "{} has changed after it was loaded", here.path);
        prop_assert!(there.lies_in(&arena), "{} is a copy that `copied` does not list", there.path);
    }
    prop_assert_eq!(tree.root.copied(), twin.root.copied());
    prop_assert_eq!(twin.root.skipped, 0);

    let again = share(&*twin).map_err(|error| TestCaseError::fail(error.to_string()))?;
    prop_assert_eq!(again.fingerprint(), arena.fingerprint());
    // burn gives running statistics a new parameter id in every process, which cannot be set.
    if !spec.has(LayerKind::Norm) {
        prop_assert_eq!(again.id(), arena.id());
    }
    Ok(())
}

proptest! {
    #![proptest_config(config(96))]

    #[test]
    fn a_shared_pipeline_comes_back_bit_for_bit(spec in spec()) {
        comes_back(&spec)?;
    }
}

proptest! {
    #![proptest_config(config(24))]

    #[test]
    fn a_saved_arena_is_the_same_arena(spec in spec()) {
        let arena = share(&spec.filled()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("arena.bpk");
        arena.save(&path).unwrap();
        let opened = Arena::open(&path).unwrap();
        prop_assert_eq!(opened.id(), arena.id());
        prop_assert!(opened.tensors().map(|t| (t.path, t.dtype, t.shape)).eq(arena.tensors().map(|t| (t.path, t.dtype, t.shape))));
        let (here, there) = (load::<Tree>(&arena, &Device::flex()).unwrap(), load::<Tree>(&opened, &Device::flex()).unwrap());
        prop_assert!(here.find().iter().zip(&there.find()).all(|(here, there)| here.same_as(there)));
    }
}

#[test]
fn every_dtype_rank_and_layout_round_trips() {
    for (at, dtype) in DTYPES.into_iter().enumerate() {
        let layouts = [Layout::Plain, Layout::Transposed, Layout::Sliced, Layout::Expanded, Layout::Flipped];
        let tensors = (1..=5).flat_map(|rank| {
            layouts.map(|layout| TensorSpec {
                dtype,
                shape: (0..rank).map(|dim| 2 + dim % 2).collect(),
                layout,
                seed: (at * 100 + rank) as u64,
                tied: false,
            })
        });
        let named = [vec![1], vec![0], vec![0, 3], vec![3, 0, 2]].into_iter().map(|shape| {
            let spec = TensorSpec { dtype, shape, layout: Layout::Plain, seed: 1, tied: false };
            (format!("{:?}", spec.shape), spec)
        });
        let spec = Spec { tensors: tensors.collect(), named: named.collect::<BTreeMap<_, _>>(), ..Spec::default() };
        comes_back(&spec).unwrap_or_else(|error| panic!("{dtype:?}: {error}"));
    }
}
