//! Arenas that are kept for others.

use burn::tensor::Device;
use ray_zerocopy::holder::{Holder, held};
use ray_zerocopy::{Arena, share};
use ray_zerocopy_tests::memory::eventually;
use tempfile::TempDir;

use crate::program::{Source, SpeechConfig, Stage};

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

#[test]
fn limit_is_kept_and_the_least_recently_used_goes_first() {
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
