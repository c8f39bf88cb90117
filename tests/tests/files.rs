//! Arenas in files: saving, inspection, and opening in sealed memory or in the file.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt};

use burn::tensor::{Device, Tensor};
use ray_zerocopy::arena::{ArenaFile, Location, Placement};
use ray_zerocopy::error::ArenaError;
use ray_zerocopy::{ActorWrapper, Arena, CallError, Error, LocalPool, TaskWrapper, load, share};
use ray_zerocopy_tests::models::{AllFields, TestModel, TestModelConfig};
use tempfile::TempDir;

fn model() -> TestModel {
    TestModelConfig::new(64).init(&Device::flex())
}

/// Only these tests change their files, and only where they say so.
fn in_file() -> Placement {
    #[allow(unsafe_code, reason = "the tests keep the promise of `in_file`")]
    // SAFETY: every file is in the folder of one test. A test that changes a file reads its tensors
    // afterwards only in a worker, which is expected to die.
    unsafe {
        Placement::in_file()
    }
}

fn ones(size: usize) -> Tensor<2> {
    Tensor::ones([2, size], &Device::flex())
}

#[test]
fn a_saved_arena_is_the_same_arena() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("fields.bpk");
    let fields = AllFields::new(&Device::flex());
    let arena = share(&fields).unwrap();
    let mut last = 0;
    arena.save_with_progress(&path, |progress| last = progress.done).unwrap();
    assert_eq!(last, arena.size_bytes());

    let opened = Arena::open(&path).unwrap();
    assert_eq!((opened.id(), opened.size_bytes(), opened.borrowed_bytes()), (arena.id(), arena.size_bytes(), 0));
    assert_eq!(opened.files().count(), 0);
    opened.verify().unwrap();
    let loaded = load::<AllFields>(&opened, &Device::flex()).unwrap().strict().unwrap();
    // A copied hash map may be serialised in another order, but the weights are the same.
    let again = share(&*loaded).unwrap();
    assert_eq!((again.fingerprint(), again.stored_bytes()), (arena.fingerprint(), arena.stored_bytes()));

    // The file is private to its user, and no other file is left.
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o400, 0o400);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn arena_opened_in_its_file_maps_the_page_cache() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.bpk");
    let model = model();
    share(&model).unwrap().save(&path).unwrap();

    let arena = Arena::open_placed(&path, in_file()).unwrap();
    assert_eq!(arena.files().collect::<Vec<_>>(), [path.as_path()]);
    assert!(arena.borrowed_bytes() >= 64 * 65 * 4);
    let placed: Vec<_> = arena.tensors().map(|tensor| tensor.placed).collect();
    assert!(
        placed.iter().all(|placed| matches!(placed, Location::File { offset, .. } if offset % 256 == 0)),
        "{placed:?}"
    );
    let loaded = load::<TestModel>(&arena, &Device::flex()).unwrap().strict().unwrap();
    assert_eq!(loaded.forward(ones(64)).into_data(), model.forward(ones(64)).into_data());

    // Workers map the same file, which the report shows.
    let actors = ActorWrapper::<TestModel>::from_arena(arena.clone()).strict().spawn(2).unwrap();
    for actor in actors.iter() {
        assert_eq!(actor.forward(ones(64)).wait().unwrap().into_data(), model.forward(ones(64)).into_data());
    }
    let report = actors.report().unwrap();
    assert!(report.processes.iter().skip(1).all(|process| process.shared > 0), "{report}");
    actors.shut_down();
}

#[test]
fn arena_file_reads_only_the_head() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.bpk");
    let arena = share(&model()).unwrap();
    arena.save(&path).unwrap();
    // Zero the first weight. Opening the head does not read it, and a verification finds it.
    let file = ArenaFile::open(&path).unwrap();
    let mut first = file.tensors().map(|tensor| match tensor.placed {
        Location::File { offset, .. } => (tensor.path.to_owned(), offset, tensor.bytes),
        _ => panic!("{tensor:?}"),
    });
    let (name, offset, len) = first.next().unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&vec![0; len as usize], offset).unwrap();

    let file = ArenaFile::open(&path).unwrap();
    assert_eq!((file.id(), file.pipeline(), file.size_bytes()), (arena.id(), arena.pipeline(), arena.size_bytes()));
    assert_eq!(file.checksums().flatten().count(), 2);
    for error in [file.verify(|_| ()).unwrap_err(), Arena::open(&path).unwrap_err()] {
        assert!(matches!(&error, ArenaError::BlobChecksum { entry, .. } if *entry == name), "{error}");
    }
    // Opening in place does not read the weights either.
    let arena = Arena::open_placed(&path, in_file()).unwrap();
    assert!(matches!(arena.verify(), Err(ArenaError::BlobChecksum { .. })));
}

#[test]
fn other_files_are_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("it.bpk");
    let refused = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let error = Arena::open(&path).unwrap_err();
        assert!(Arena::open_placed(&path, in_file()).is_err());
        error.to_string()
    };
    assert!(refused(b"").contains("it.bpk"));
    assert!(refused(b"hello").contains("not an arena"));
    assert!(refused(&[0xff; 4096]).contains("it.bpk"));
    let missing = Arena::open(folder.path().join("nowhere.bpk")).unwrap_err();
    assert!(matches!(&missing, ArenaError::File { path, .. } if path.ends_with("nowhere.bpk")), "{missing}");
    assert!(matches!(Arena::open(folder.path()), Err(ArenaError::File { .. })));
    let nowhere = share(&model()).unwrap().save(folder.path().join("no/such/folder.bpk")).unwrap_err();
    assert!(matches!(nowhere, ArenaError::File { .. }), "{nowhere}");
}

#[test]
fn a_file_that_was_cut_short_is_refused() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.bpk");
    share(&model()).unwrap().save(&path).unwrap();
    let whole = fs::read(&path).unwrap();
    for len in [1, 9, 10, 200, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..len]).unwrap();
        let error = Arena::open(&path).map(drop).unwrap_err();
        assert!(matches!(error, ArenaError::NotAnArena(_) | ArenaError::File { .. }), "{len}: {error}");
    }
}

#[test]
fn worker_refuses_a_file_that_was_changed() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.bpk");
    share(&model()).unwrap().save(&path).unwrap();
    let arena = Arena::open_placed(&path, in_file()).unwrap();
    OpenOptions::new().append(true).open(&path).unwrap().set_len(arena.size_bytes() + 1).unwrap();
    let error = ActorWrapper::<TestModel>::from_arena(arena).spawn(1).map(drop).unwrap_err();
    let Error::Call(CallError::Load { error, .. }) = &error else { panic!("{error}") };
    assert!(error.to_string().contains("was changed or replaced"), "{error}");
}

#[test]
fn truncating_a_mapped_file_kills_its_worker() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.bpk");
    // Large enough that some weights are on pages that the worker has not read yet.
    share(&TestModelConfig::new(512).init(&Device::flex())).unwrap().save(&path).unwrap();
    let arena = Arena::open_placed(&path, in_file()).unwrap();
    let actors = ActorWrapper::<TestModel>::from_arena(arena).spawn(1).unwrap();
    OpenOptions::new().write(true).open(&path).unwrap().set_len(4096).unwrap();
    let error = actors.actor(0).forward(ones(512)).wait().unwrap_err();
    let text = error.to_string();
    assert!(matches!(&error, Error::Call(CallError::WorkerDied { .. })), "{text}");
    assert!(text.contains("past the end of a mapped file"), "{text}");
    actors.shut_down();
}

#[test]
fn tasks_run_on_an_opened_arena() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.bpk");
    let model = model();
    share(&model).unwrap().save(&path).unwrap();
    for arena in [Arena::open(&path).unwrap(), Arena::open_placed(&path, in_file()).unwrap()] {
        let tasks = TaskWrapper::<TestModel>::from_arena_on(&LocalPool::shared().unwrap(), arena).unwrap();
        assert_eq!(tasks.forward(ones(64)).wait().unwrap().into_data(), model.forward(ones(64)).into_data());
    }
}
