//! Arenas that are kept for others.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::tensor::Device;
use ray_zerocopy::holder::{Holder, follow, held, swap_followers};
use ray_zerocopy::{Arena, share};
use ray_zerocopy_tests::memory::eventually;
use tempfile::TempDir;

use crate::program::{Source, SpeechConfig, Stage, of};

#[test]
fn kept_arena_outlives_its_programs() {
    let stage = Stage::new();
    let path = stage.saved("model.bpk", 64);
    let (holder, kept) = stage.get(Source::Kept(path.clone()));
    for _ in 0..2 {
        let (program, found) = stage.get(Source::Path(path.clone()));
        assert_eq!(found.inode, kept.inode);
        program.end();
    }
    holder.kill();
    let (_program, found) = stage.get(Source::Path(path));
    assert_ne!(found.inode, kept.inode);
}

/// A saved arena of a megabyte.
fn saved(folder: &TempDir, name: &str) -> std::path::PathBuf {
    let path = folder.path().join(name);
    share(&SpeechConfig { size: 512 }.init(&Device::flex())).unwrap().save(&path).unwrap();
    path
}

fn is_kept(path: &std::path::Path) -> bool {
    held().unwrap().iter().any(|arena| arena.is_kept && arena.source == path.to_str().unwrap())
}

/// Limits are for all that a process keeps, so tests that keep something here take turns.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn limit_is_kept_and_the_least_recently_used_goes_first() {
    let _alone = alone();
    let folder = TempDir::new().unwrap();
    let [first, second, third] = ["first", "second", "third"].map(|name| saved(&folder, name));
    let limited = || Holder::builder().limit(5 << 19);
    let holder = limited().build();
    for path in [&first, &second, &first] {
        holder.keep(path, |_| ()).unwrap();
    }
    let error = holder.keep(&third, |_| ()).unwrap_err().to_string();
    assert!(error.contains("third has 1") && error.contains("are kept already"), "{error}");
    assert!(is_kept(&first) && is_kept(&second) && !is_kept(&third));

    let stage = Stage::common();
    let (program, _) = stage.get(Source::File(first.clone()));
    program.end();
    limited().evict(true).build().keep(&third, |_| ()).unwrap();
    assert!(is_kept(&first) && !is_kept(&second) && is_kept(&third), "the second was used before the first");
    let error = Holder::builder().limit(1000).evict(true).build().keep(&second, |_| ()).unwrap_err().to_string();
    assert!(error.contains("of 1000 are kept"), "{error}");
    for path in [&first, &second, &third] {
        holder.release(path).unwrap();
        assert!(!is_kept(path));
    }
}

#[test]
fn list_names_what_is_held_and_lets_it_go() {
    let _alone = alone();
    let folder = TempDir::new().unwrap();
    let path = saved(&folder, "listed.bpk");
    let of_path = || held().unwrap().into_iter().find(|arena| arena.source == path.to_str().unwrap());
    assert_eq!(of_path(), None);
    let arena = Arena::shared_file(&path, |_| ()).unwrap();
    let listed = of_path().unwrap();
    assert_eq!((listed.id, listed.bytes, listed.pid), (arena.id(), arena.size_bytes(), std::process::id()));
    assert!(!listed.is_kept && listed.pipeline.contains("Speech"));
    let error = listed.release().unwrap_err().to_string();
    assert!(error.contains("does not keep this arena for others"), "{error}");

    let holder = Holder::builder().build();
    drop(holder.keep(&path, |_| ()).unwrap());
    drop(arena);
    let kept = of_path().unwrap();
    assert!(kept.is_kept);
    kept.release().unwrap();
    eventually("the memory is gone", || of_path().is_none());
    let error = kept.release().unwrap_err().to_string();
    assert!(error.contains("it no longer has the arena"), "{error}");
}

#[test]
fn base_of_a_variant_does_not_go_to_make_room_for_it() {
    let _alone = alone();
    let folder = TempDir::new().unwrap();
    let [path, other] = ["base", "other"].map(|name| saved(&folder, name));
    let limited = |bytes| Holder::builder().limit(bytes).evict(true).build();
    // Room for two of a megabyte.
    let holder = limited(5 << 19);
    let base = holder.keep(&path, |_| ()).unwrap();
    holder.keep(&other, |_| ()).unwrap();
    let file = folder.path().join("variant");
    base.variant(&SpeechConfig { size: 512 }.init(&Device::flex())).unwrap().save_variant(&file).unwrap();
    let error = limited(3 << 19).keep_variant(&file, &base).unwrap_err().to_string();
    assert!(error.contains("are kept already"), "{error}");
    assert!(is_kept(&path) && is_kept(&other), "nothing goes if that does not help");

    holder.keep_variant(&file, &base).unwrap();
    assert!(is_kept(&path) && !is_kept(&other) && is_kept(&file), "the base was used before the other one");
    for path in [&file, &path] {
        assert!(holder.release(path).unwrap());
    }
}

#[test]
fn program_that_keeps_an_arena_and_is_sent_the_same_one_has_it_once() {
    let _alone = alone();
    let folder = TempDir::new().unwrap();
    let path = saved(&folder, "kept.bpk");
    let holder = Holder::builder().build();
    let kept = holder.keep(&path, |_| ()).unwrap();
    let name = format!("kept by {}", std::process::id());
    let taken = Arc::new(Mutex::new(None));
    let takes = Arc::clone(&taken);
    let following = follow(&name, move |arena| {
        *takes.lock().unwrap() = Some(arena);
        Ok("taken".to_owned())
    });
    // The same content in other memory, as a program that does not find this one makes it.
    let sent = Arena::open(&path).unwrap();
    assert_ne!(of(&sent).inode, of(&kept).inode);
    let answers = swap_followers(&name, &sent).unwrap();
    assert!(answers.len() == 1 && answers[0].outcome == Ok("taken".to_owned()), "{answers:?}");
    assert_eq!(of(taken.lock().unwrap().as_ref().unwrap()).inode, of(&kept).inode);
    drop((following, taken, kept, sent));
    assert!(is_kept(&path), "it is kept as before");
    let stage = Stage::common();
    let (program, _) = stage.get(Source::File(path.clone()));
    program.end();
    assert!(holder.release(&path).unwrap());
    eventually("the memory is gone", || !is_kept(&path));
}
