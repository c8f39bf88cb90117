//! Tests of the builder.

use std::sync::Arc;

use burn::tensor::{Bytes, DType};

use super::super::manifest::TensorEntry;
use super::ArenaBuilder;
use super::ArenaError;
use super::FileBlob;
use super::MAX_TENSOR_COUNT;
use super::Value;
use crate::tensor::kind::TensorKind;

fn of(numbers: impl Iterator<Item = u64>) -> Result<crate::arena::arena::Arena, ArenaError> {
    let mut builder = ArenaBuilder::new("numbers");
    for (at, number) in numbers.enumerate() {
        let entry = TensorEntry {
            path: at.to_string(),
            blob: 0,
            kind: TensorKind::Int,
            dtype: DType::U64,
            shape: vec![1],
            param: None,
            why: None,
        };
        builder.tensor(entry, Arc::new(Value(Bytes::from_elems(vec![number]))))?;
    }
    builder.seal(&mut |_| ())
}

#[test]
#[cfg_attr(miri, ignore = "an arena is a memfd, which Miri does not have")]
fn more_than_a_container_takes_is_refused() {
    let limit = MAX_TENSOR_COUNT as u64;
    assert_eq!(of(0..1000).map(|arena| arena.stored_bytes()), Ok(8000));
    let error = of(0..=limit).map(drop).unwrap_err();
    assert!(matches!(error, ArenaError::TooLarge { found, limit: most, .. } if (found, most) == (limit + 1, limit)));
}

#[test]
#[cfg_attr(miri, ignore = "an arena is a memfd, which Miri does not have")]
fn equal_content_is_stored_once() {
    let arena = of([1, 2, 1, 3, 2, 1].into_iter()).unwrap();
    assert_eq!((arena.stored_bytes(), arena.weight_bytes()), (3 * 8, 6 * 8));
    arena.verify().unwrap();
}

/// Locations are looked up in a hash map. Comparing each with each other would take minutes.
#[test]
fn file_tensors_are_indexed_in_linear_time() {
    let mut builder = ArenaBuilder::new("view");
    for round in 0..2 {
        for at in 0..200_000_u64 {
            let (path, dtype) = (format!("{round}.{at}"), DType::U64);
            let entry =
                TensorEntry { path, blob: 0, kind: TensorKind::Int, dtype, shape: vec![1], param: None, why: None };
            builder.in_file(entry, FileBlob { file: 0, offset: 8 * at, len: 8 });
        }
    }
    assert_eq!((builder.manifest.tensors.len(), builder.manifest.blobs.len()), (400_000, 200_000));
}

/// Builds an arena with its own copied field, and every second tensor of `base`, borrowed from
/// it.
fn view(base: &crate::arena::arena::Arena) -> crate::arena::arena::Arena {
    let mut builder = ArenaBuilder::new("view");
    for entry in base.manifest().tensors.iter().step_by(2) {
        builder.borrow(entry.clone(), base).unwrap();
    }
    builder.copy("own", vec![7; 100]);
    builder.seal(&mut |_| ()).unwrap()
}

#[test]
#[cfg_attr(miri, ignore = "an arena is a memfd, which Miri does not have")]
fn tensors_of_another_arena_stay_where_they_are() {
    let base = of(0..10).unwrap();
    let view = view(&base);
    view.verify().unwrap();
    assert_eq!((view.weight_bytes(), view.borrowed_bytes(), view.files().count()), (5 * 8, 0, 0));
    assert!(view.tensors().all(|tensor| tensor.placed == crate::arena::tensor::Location::Base { id: base.id() }));
    assert_eq!(view.bases().collect::<Vec<_>>(), [(base.id(), 5 * 8)]);
    let numbers = |arena: &crate::arena::arena::Arena| {
        let number = |blob| u64::from_le_bytes(arena.slice(blob)[..].try_into().unwrap());
        arena.manifest().tensors.iter().map(|entry| number(entry.blob)).collect::<Vec<_>>()
    };
    assert_eq!(numbers(&view), [0, 2, 4, 6, 8]);

    // Opened from its file descriptors, as in a worker, and then with those of another arena.
    let fds = |arena: &crate::arena::arena::Arena| {
        arena.fds().iter().map(|fd| fd.try_clone_to_owned().unwrap()).collect::<Vec<_>>()
    };
    let again = crate::arena::arena::Arena::from_handle(&view.handle(), fds(&view)).unwrap();
    assert_eq!((numbers(&again), again.id()), (numbers(&view), view.id()));
    // The base is found by its content: other memory with the same content is the base too.
    let mixed = |other: u64| {
        let other = of(other..10 + other).unwrap();
        let fds = fds(&view).into_iter().take(1).chain(fds(&other)).collect();
        crate::arena::arena::Arena::from_handle(&view.handle(), fds)
    };
    assert_eq!(numbers(&mixed(0).unwrap()), numbers(&view));
    let error = mixed(1).unwrap_err();
    assert!(matches!(&error, ArenaError::OtherBase { expected, .. } if *expected == base.id().to_string()), "{error}");
    let alone = crate::arena::arena::Arena::from_memfd(fds(&view).swap_remove(0)).unwrap_err();
    assert!(matches!(&alone, ArenaError::NeedsBase { base: found, .. } if *found == base.id().to_string()), "{alone}");

    // The saved file contains all tensors.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("view.bpk");
    view.save(&path).unwrap();
    drop((view, base, again));
    let opened = crate::arena::arena::Arena::open(&path).unwrap();
    assert_eq!(numbers(&opened), [0, 2, 4, 6, 8]);
    assert_eq!(opened.copied_fields().collect::<Vec<_>>(), [("own", 100)]);
}

#[test]
#[cfg_attr(miri, ignore = "an arena is a memfd, which Miri does not have")]
fn view_of_a_view_borrows_from_the_first() {
    let base = of(0..10).unwrap();
    let second = view(&view(&base));
    second.verify().unwrap();
    assert_eq!(second.paths().collect::<Vec<_>>(), ["0", "4", "8"]);
    // The view in between stores no tensor, so it is no base.
    assert_eq!(second.bases().collect::<Vec<_>>(), [(base.id(), 3 * 8)]);
    assert_eq!(second.addresses().nth(1), base.addresses().next(), "one mapping of the base");
}
