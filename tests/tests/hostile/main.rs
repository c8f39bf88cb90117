//! Malicious inputs: each is refused with the expected error, and allocates no more memory than its
//! size allows.
//!
//! The files are in `tests/hostile`, and the tables here define them. `BLESS=1 cargo test
//! --workspace --test hostile` rewrites them and their README.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod arenas;
mod checkpoints;
mod counting;
mod entries;
mod messages;
mod pack;
mod pickles;
mod seeds;
mod torch;
mod variants;

use std::fmt::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Once;

use counting::asked_for;
use pack::Draft;
use ray_zerocopy::__private::fuzz;
use ray_zerocopy::__private::transport::Connection;
use ray_zerocopy::error::ArenaError;
use ray_zerocopy::{Arena, Checkpoint};
use rustix::fs::{FileType, MemfdFlags, Mode, SealFlags, fcntl_add_seals, memfd_create};

/// The only valid file.
const GOOD: &str = "good.safetensors";

/// A malicious file.
struct Case {
    file: &'static str,
    /// What the file attempts, for the README.
    tries: &'static str,
    /// How the error starts.
    refused: &'static str,
    bytes: Vec<u8>,
}

type Open = fn(&Path, &[u8]) -> Result<(), String>;

/// The folders, their cases, and the function that opens their files.
fn folders() -> [(&'static str, Vec<Case>, Open); 4] {
    [
        ("arena", arenas::cases(), |_, bytes| open(bytes).map_err(|error| error.to_string())),
        ("variant", variants::cases(), |path, _| variants::open(path)),
        ("message", messages::cases(), |_, bytes| fuzz::message(bytes)),
        ("checkpoint", [checkpoints::cases(), pickles::cases()].into_iter().flatten().collect(), |path, _| {
            match Checkpoint::open(path) {
                Ok(checkpoint) => Err(format!("{checkpoint:?} was opened")),
                Err(error) => {
                    let (error, folder) = (error.to_string(), folder("checkpoint").display().to_string());
                    Err(error.replace(&path.display().to_string(), "it").replace(&format!("{folder}/"), ""))
                }
            }
        }),
    ]
}

fn memfd(bytes: &[u8]) -> OwnedFd {
    let fd = memfd_create("hostile", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    std::io::Write::write_all(&mut std::fs::File::from(fd.try_clone().unwrap()), bytes).unwrap();
    fcntl_add_seals(&fd, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL).unwrap();
    fd
}

fn open(bytes: &[u8]) -> Result<(), ArenaError> {
    Arena::from_memfd(memfd(bytes))?.verify()
}

fn folder(name: &str) -> PathBuf {
    // Errors contain the absolute path.
    std::path::absolute("hostile").unwrap().join(name)
}

/// The allowed allocation: a few MiB for a small file, and a multiple of its size for a large one.
fn allowed(bytes: usize) -> usize {
    (4 << 20) + 64 * bytes
}

#[test]
fn hostile_file_is_refused_within_memory_bounds() {
    bless();
    let mut wrong = Vec::new();
    for (name, cases, open) in folders() {
        for case in cases {
            let path = folder(name).join(case.file);
            let bytes = std::fs::read(&path).unwrap();
            let (result, cost) = asked_for(|| open(&path, &bytes));
            match result {
                Err(error) if error.starts_with(case.refused) => {}
                other => wrong.push(format!("{name}/{}: {other:?}, not `{}`", case.file, case.refused)),
            }
            if cost > allowed(bytes.len()) {
                wrong.push(format!("{name}/{}: {cost} bytes were asked for, and it has {}", case.file, bytes.len()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Rewrites the files if `BLESS` is set, before any test reads them.
fn bless() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if std::env::var_os("BLESS").is_some() {
            for (name, cases, _) in folders() {
                std::fs::create_dir_all(folder(name)).unwrap();
                cases.iter().for_each(|case| std::fs::write(folder(name).join(case.file), &case.bytes).unwrap());
            }
            std::fs::write(folder("checkpoint").join(GOOD), checkpoints::good()).unwrap();
            std::fs::write(folder("README.md"), readme()).unwrap();
            seeds::write(&folder("../../fuzz/corpus"));
        }
    });
}

fn readme() -> String {
    let mut text = "# Hostile inputs\n\nWhat each file tries, and how the error starts that refuses it. Written by\n\
        `BLESS=1 cargo test --workspace --test hostile` from the tables in `tests/tests/hostile`.\n"
        .to_owned();
    for (name, cases, _) in folders() {
        write!(text, "\n## {name}\n\n| file | tries | refused with |\n| --- | --- | --- |\n").unwrap();
        for case in cases {
            let refused = case.refused.replace('|', "\\|");
            // Markdown code with two backticks on each side may contain single ones.
            writeln!(text, "| `{}` | {} | `` {} `` |", case.file, case.tries, refused.trim()).unwrap();
        }
    }
    write!(text, "\n`checkpoint/{GOOD}` is a good one, for an index to name.\n").unwrap();
    text
}

#[test]
fn the_files_are_those_of_the_tables() {
    bless();
    for (name, cases, _) in folders() {
        let mut expected: Vec<_> = cases.iter().map(|case| case.file.to_owned()).collect();
        for case in &cases {
            let path = folder(name).join(case.file);
            let same = std::fs::read(&path).is_ok_and(|bytes| bytes == case.bytes);
            assert!(same, "{} has changed: BLESS=1 rewrites it", path.display());
        }
        let entries = std::fs::read_dir(folder(name)).unwrap();
        let mut found: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        found.retain(|file| file != GOOD);
        expected.sort();
        found.sort();
        assert_eq!(found, expected, "{name}: a file without a line, or a line twice");
    }
    assert!(std::fs::read(folder("checkpoint").join(GOOD)).unwrap() == checkpoints::good());
    assert_eq!(Checkpoint::open(folder("checkpoint").join(GOOD)).unwrap().tensors().count(), 1);
    assert_eq!(std::fs::read_to_string(folder("README.md")).unwrap(), readme(), "BLESS=1 rewrites it");
}

/// The same arenas as files: an arena that is refused in a memfd is refused by path too.
#[test]
fn refused_arena_is_refused_as_a_file_too() {
    bless();
    for case in arenas::cases() {
        let path = folder("arena").join(case.file);
        let (result, cost) = asked_for(|| Arena::open(&path));
        assert!(result.is_err(), "{}", case.file);
        assert!(cost < allowed(case.bytes.len()), "{}: {cost} bytes were asked for", case.file);
        // Some of them are valid burnpack files. Opening them as checkpoints allocates no more
        // either.
        let (_, cost) = asked_for(|| Checkpoint::open(&path));
        assert!(cost < allowed(case.bytes.len()), "{} as a checkpoint: {cost} bytes were asked for", case.file);
    }
}

/// The variant that the cases spoil is valid, and is refused without its base.
#[test]
fn valid_variant_is_opened_with_its_base_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("variant.bpk");
    std::fs::write(&path, variants::valid().bytes()).unwrap();
    let opened = Arena::open_variant(&path, &variants::base()).unwrap();
    opened.verify().unwrap();
    assert_eq!(opened.bases().collect::<Vec<_>>(), [(variants::base().id(), 24)]);
    assert!(matches!(open(&variants::valid().bytes()), Err(ArenaError::NeedsBase { .. })));
    // A variant that is refused with its base is refused without it, too.
    for case in variants::cases() {
        assert!(open(&case.bytes).is_err(), "{}", case.file);
    }
}

/// Opening a FIFO does not wait for a writer, and opening `/dev/zero` does not read without end.
#[test]
fn special_files_are_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe.safetensors");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    for path in [&pipe, Path::new("/dev/zero"), Path::new("/proc/self/fd")] {
        let error = Checkpoint::open(path).unwrap_err().to_string();
        assert!(error.contains("it is not a file") || error.contains("the folder has none of"), "{error}");
        assert!(Arena::open(path).unwrap_err().to_string().ends_with("it is not a file"));
    }
}

#[test]
fn unspoilt_arena_is_accepted() {
    let arena = Arena::from_memfd(memfd(&Draft::valid().bytes())).unwrap();
    arena.verify().unwrap();
    assert_eq!(arena.paths().collect::<Vec<_>>(), ["a", "b", "t"]);
    assert_eq!((arena.weight_bytes(), arena.stored_bytes()), (64, 40));
    assert_eq!(arena.copied_fields().collect::<Vec<_>>(), [("c", 6)]);
}

#[test]
fn an_arena_cut_anywhere_is_refused() {
    let good = Draft::valid().bytes();
    for len in 0..good.len() {
        let (result, cost) = asked_for(|| open(&good[..len]));
        assert!(result.is_err(), "cut to {len} of {} bytes", good.len());
        assert!(cost < allowed(len), "cut to {len}: {cost} bytes were asked for");
    }
}

/// Flips each bit except padding. Some flips in burnpack's table have no effect, because its reader
/// accepts a key of bytes in place of text and ignores the length of a pair: 11 keys, and the 63
/// bits of three lengths.
#[test]
fn an_arena_with_a_flipped_bit_is_refused() {
    let good = Draft::valid().bytes();
    let head = 10 + Draft::valid().head().len();
    let id = Arena::from_memfd(memfd(&good)).unwrap().id();
    let mut same = 0;
    let padding = |at: usize| {
        let data = good.len() - (512 + 6);
        let tensor = [0..24, 256..272, 512..518].iter().any(|range| at >= data && range.contains(&(at - data)));
        at >= head && !tensor
    };
    for (at, bit) in (0..good.len()).filter(|&at| !padding(at)).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let mut bad = good.clone();
        bad[at] ^= 1 << bit;
        let (result, cost) = asked_for(|| open(&bad));
        if result.is_ok() {
            assert!((10..head).contains(&at), "bit {bit} of byte {at} flipped, and was accepted");
            // With the same manifest and valid checksums, it is the same arena.
            assert_eq!(Arena::from_memfd(memfd(&bad)).unwrap().id(), id);
            same += 1;
        }
        assert!(cost < allowed(bad.len()), "bit {bit} of byte {at} flipped: {cost} bytes were asked for");
    }
    assert_eq!(same, 11 + 3 * 63, "flipped bits of the table without effect");
}

/// The same frames over a socket: the receiver returns the parser's error, and continues with the
/// next packet.
#[test]
fn hostile_packet_does_not_end_the_connection() {
    let (left, right) = Connection::pair().unwrap();
    let left = left.into_fd();
    let mut sent = 0;
    for case in messages::cases() {
        // Skip frames that are not a pair of a text and a number, or are too large for a packet.
        let Some((2, frame)) = case.bytes.split_first().map(|(kind, frame)| (kind & 3, frame)) else { continue };
        let parsed = fuzz::message(&[&[2][..], frame].concat());
        let packet = [&[0], frame].concat();
        assert_eq!(rustix::io::write(&left, &packet).unwrap(), packet.len());
        match right.receive::<(String, i32)>() {
            Err(error) => assert_eq!(Err(error.to_string()), parsed, "{}", case.file),
            // The frame is valid, and the connection does not check its contents.
            Ok(received) => assert!(received.is_some_and(|received| received.message.1 == 7), "{}", case.file),
        }
        sent += 1;
    }
    assert!(sent > 20, "{sent}");
    for packet in [&b"\x02unknown kind"[..], b"\x01a memfd that did not come along"] {
        rustix::io::write(&left, packet).unwrap();
        let error = right.receive::<(String, i32)>().map(drop).unwrap_err();
        assert_eq!(error.to_string(), "a packet is broken: an unknown kind of packet");
    }
}
