//! Saved variants.

use std::path::Path;

use ray_zerocopy::arena::{ArenaFile, Placement};
use ray_zerocopy::error::ArenaError;
use ray_zerocopy::{Arena, Checkpoint, jit, share, share_from};
use tempfile::TempDir;

use crate::speech::{Speech, computed, expected, small};

/// A base and a variant that differs in one layer, saved.
struct Saved {
    folder: TempDir,
    base: Arena,
    tuned: Arena,
    pipeline: Speech,
}

impl Saved {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut pipeline = small();
        let base = share(&pipeline).unwrap();
        base.save(folder.path().join("base.bpk")).unwrap();
        pipeline.body[1] = pipeline.config.layer();
        let tuned = base.variant(&pipeline).unwrap();
        tuned.save_variant(folder.path().join("tuned.bpk")).unwrap();
        Self { folder, base, tuned, pipeline }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }
}

fn len(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

/// Flips a bit of the byte `from_end` bytes before the end of a file.
fn flip(path: &Path, from_end: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes.len() - from_end;
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn saved_variant_is_small_and_the_same_arena() {
    let saved = Saved::new();
    let layer = saved.pipeline.config.layer_bytes();
    assert!((layer..layer + (8 << 10)).contains(&len(&saved.path("tuned.bpk"))));
    let opened = Arena::open_variant(saved.path("tuned.bpk"), &saved.base).unwrap();
    assert_eq!((opened.id(), opened.own_bytes()), (saved.tuned.id(), saved.tuned.own_bytes()));
    assert_eq!(computed(&opened), expected(&saved.pipeline));
    opened.verify().unwrap();

    // The base from its file, in sealed memory or in place, is the same base.
    let base = Arena::open(saved.path("base.bpk")).unwrap();
    assert_eq!(Arena::open_variant(saved.path("tuned.bpk"), &base).unwrap().id(), saved.tuned.id());

    let file = ArenaFile::open(saved.path("base.bpk")).unwrap();
    let file = ArenaFile::open_variant(saved.path("tuned.bpk"), &file).unwrap();
    file.verify(|_| ()).unwrap();
    assert_eq!(file.size_bytes(), len(&saved.path("tuned.bpk")));
    assert_eq!(file.copied_field("labels").unwrap().map(|field| field.len()), Some(100_006));
    let sealed = file.seal(|_| ()).unwrap();
    assert_eq!((sealed.id(), computed(&sealed)), (saved.tuned.id(), expected(&saved.pipeline)));
    let whole = file.into_arena(Placement::sealed(), |_| ()).unwrap();
    assert_eq!(whole.id(), saved.tuned.id());
}

#[test]
fn whole_file_of_a_variant_needs_no_base() {
    let saved = Saved::new();
    let path = saved.path("whole.bpk");
    saved.tuned.save(&path).unwrap();
    assert!(len(&path) >= saved.base.size_bytes());
    let opened = Arena::open(&path).unwrap();
    assert_eq!((computed(&opened), opened.bases().count()), (expected(&saved.pipeline), 0));
    // A whole file may be opened with a base too, and an arena without a base may be saved as a variant.
    assert_eq!(Arena::open_variant(&path, &saved.base).unwrap().id(), opened.id());
    opened.save_variant(&path).unwrap();
    assert_eq!(Arena::open(&path).unwrap().id(), opened.id());
}

#[test]
fn variant_without_its_base_is_refused_everywhere() {
    let saved = Saved::new();
    let path = saved.path("tuned.bpk");
    let [variant, base] = [saved.tuned.id(), saved.base.id()].map(|id| id.to_string());
    let errors = [
        Arena::open(&path).map(drop).map_err(|error| error.to_string()),
        ArenaFile::open(&path).map(drop).map_err(|error| error.to_string()),
        Checkpoint::open(&path).map(drop).map_err(|error| error.to_string()),
        jit::open(&path, |_| ()).map(drop).map_err(|error| error.to_string()),
        Arena::shared(&path, &saved.pipeline).map(drop).map_err(|error| error.to_string()),
        Arena::shared_file(&path, |_| ()).map(drop).map_err(|error| error.to_string()),
    ];
    for error in errors {
        let error = error.unwrap_err();
        let names_all = [&variant, &base, "tuned.bpk", "Arena::open_variant", "--base FILE"];
        assert!(names_all.iter().all(|part| error.contains(*part)), "{error}");
    }
    let error = Arena::open(&path).unwrap_err();
    assert!(matches!(&error, ArenaError::NeedsBase { base: found, .. } if *found == base), "{error}");
}

#[test]
fn other_base_is_refused_with_both_ids() {
    let saved = Saved::new();
    let other = share(&small()).unwrap();
    let [expected, found] = [saved.base.id(), other.id()].map(|id| id.to_string());
    other.save(saved.path("other.bpk")).unwrap();
    let error = Arena::open_variant(saved.path("tuned.bpk"), &other).unwrap_err();
    let other = ArenaFile::open(saved.path("other.bpk")).unwrap();
    let same = ArenaFile::open_variant(saved.path("tuned.bpk"), &other).unwrap_err();
    assert_eq!(error, same);
    let ArenaError::OtherBase { variant, expected: named, found: given } = &error else { panic!("{error}") };
    assert_eq!((named, given), (&expected, &found));
    assert!(variant.ends_with("tuned.bpk"), "{variant}");
}

#[test]
fn corrupted_variant_and_corrupted_base_are_found() {
    let saved = Saved::new();
    let [base, tuned] = ["base.bpk", "tuned.bpk"].map(|name| saved.path(name));
    flip(&tuned, 1);
    let error = Arena::open_variant(&tuned, &saved.base).unwrap_err();
    assert!(matches!(&error, ArenaError::BlobChecksum { entry, .. } if entry == "body.1.weight"), "{error}");
    flip(&tuned, 1);

    // The last blob of the base is a copied field, which the variant borrows.
    flip(&base, 1);
    let file = ArenaFile::open_variant(&tuned, &ArenaFile::open(&base).unwrap()).unwrap();
    let error = file.verify(|_| ()).unwrap_err();
    assert!(matches!(&error, ArenaError::BlobChecksum { .. }), "{error}");
    assert!(file.seal(|_| ()).is_err());
}

#[test]
fn variant_of_a_variant_is_opened_with_both() {
    let mut saved = Saved::new();
    saved.pipeline.body[3] = saved.pipeline.config.layer();
    let second = saved.tuned.variant(&saved.pipeline).unwrap();
    second.save_variant(saved.path("second.bpk")).unwrap();
    let first = Arena::open_variant(saved.path("tuned.bpk"), &saved.base).unwrap();
    let opened = Arena::open_variant(saved.path("second.bpk"), &first).unwrap();
    assert_eq!((opened.id(), computed(&opened)), (second.id(), expected(&saved.pipeline)));
    let error = Arena::open_variant(saved.path("second.bpk"), &saved.base).unwrap_err();
    let named = saved.tuned.id().to_string();
    assert!(matches!(&error, ArenaError::OtherBase { expected, .. } if *expected == named), "{error}");

    let open = |name: &str, base: &ArenaFile| ArenaFile::open_variant(saved.path(name), base).unwrap();
    let file = open("second.bpk", &open("tuned.bpk", &ArenaFile::open(saved.path("base.bpk")).unwrap()));
    file.verify(|_| ()).unwrap();
    assert_eq!(computed(&file.seal(|_| ()).unwrap()), expected(&saved.pipeline));
}

#[test]
fn file_becomes_a_variant_of_another_by_checksums() {
    let saved = Saved::new();
    saved.tuned.save(saved.path("whole.bpk")).unwrap();
    let [base, whole] = ["base.bpk", "whole.bpk"].map(|name| ArenaFile::open(saved.path(name)).unwrap());
    let made = whole.save_variant(&base, saved.path("made.bpk"), |_| ()).unwrap();
    let layer = saved.pipeline.config.layer_bytes();
    assert!((layer..layer + (8 << 10)).contains(&made.size_bytes()), "{}", made.size_bytes());
    assert_eq!(made.bases().map(|(id, _)| id).collect::<Vec<_>>(), [saved.base.id()]);
    made.verify(|_| ()).unwrap();
    let opened = Arena::open_variant(saved.path("made.bpk"), &saved.base).unwrap();
    assert_eq!(computed(&opened), expected(&saved.pipeline));

    // Of a variant again: what it stores is the difference from both.
    let again = whole.save_variant(&made, saved.path("again.bpk"), |_| ()).unwrap();
    assert!(again.size_bytes() < 8 << 10);
    assert_eq!(computed(&again.seal(|_| ()).unwrap()), expected(&saved.pipeline));

    // A byte that would be stored has changed since the file was written.
    let bytes = std::fs::read(saved.path("whole.bpk")).unwrap();
    let place = whole.tensors().find(|tensor| tensor.path == "body.1.weight").unwrap().placed;
    let ray_zerocopy::arena::Location::File { offset, .. } = place else { panic!("{place:?}") };
    flip(&saved.path("whole.bpk"), bytes.len() - offset as usize);
    let whole = ArenaFile::open(saved.path("whole.bpk")).unwrap();
    let error = whole.save_variant(&base, saved.path("bad.bpk"), |_| ()).unwrap_err();
    assert!(matches!(&error, ArenaError::BlobChecksum { entry, .. } if entry == "body.1.weight"), "{error}");
    assert!(!saved.path("bad.bpk").exists());
}

/// Weights that are borrowed from a file without checksums have no id that a file could name.
#[test]
fn variant_of_weights_in_a_file_is_not_saved_as_one() {
    let saved = Saved::new();
    saved.base.save(saved.path("whole.bpk")).unwrap();
    // SAFETY: the file is in a folder of this test, which does not change it.
    #[allow(unsafe_code, reason = "the promise is part of what is tested")]
    let placement = unsafe { Placement::in_file() };
    let checkpoint = Checkpoint::open(saved.path("whole.bpk")).unwrap().placement(placement);
    let skeleton = saved.pipeline.config.init(&burn::tensor::Device::flex());
    let base = share_from(&skeleton, &checkpoint).unwrap();
    let tuned = base.variant(&saved.pipeline).unwrap();
    assert_eq!(computed(&tuned), expected(&saved.pipeline));
    assert!(tuned.own_bytes() < 2 * saved.pipeline.config.layer_bytes(), "the rest is borrowed from the file");
    let error = tuned.save_variant(saved.path("bad.bpk")).unwrap_err();
    assert!(matches!(&error, ArenaError::BorrowsFile { file } if file.ends_with("whole.bpk")), "{error}");
    tuned.save(saved.path("good.bpk")).unwrap();
    assert_eq!(computed(&Arena::open(saved.path("good.bpk")).unwrap()), expected(&saved.pipeline));
}
