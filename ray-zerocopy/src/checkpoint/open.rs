//! Which files a path stands for.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Component, Path, PathBuf};

use super::{CheckpointError, CheckpointFormat, Entry, WeightFile, burnpack, names, safetensors};
use crate::arena::copy::read_at;
use crate::arena::{Stamp, region};
use crate::engine::local::transport::MAX_FDS;

/// What a folder may have, in this order.
const IN_FOLDER: [&str; 3] = ["model.safetensors.index.json", "model.safetensors", "model.bpk"];
/// An index of more bytes than this is no index.
const MAX_INDEX: u64 = 100_000_000;
/// A worker gets a file descriptor for each file, and one for the arena.
const MAX_FILES: usize = MAX_FDS - 2;

type Opened = (Vec<WeightFile>, Vec<Entry>);

pub(super) fn open(path: &Path) -> Result<Opened, CheckpointError> {
    let path = if path.is_dir() { in_folder(path)? } else { path.to_owned() };
    if path.to_string_lossy().ends_with(".index.json") {
        return sharded(&path);
    }
    let (file, stamp) = file(&path)?;
    let (format, entries) = entries(&file, &stamp, 0)?;
    names::unique(&entries)?;
    Ok((vec![WeightFile { fd: file.into(), stamp, format }], entries))
}

fn in_folder(folder: &Path) -> Result<PathBuf, CheckpointError> {
    let found = IN_FOLDER.iter().map(|name| folder.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| CheckpointError::Format {
        path: folder.display().to_string(),
        found: format!("the folder has none of {}", IN_FOLDER.join(", ")),
    })
}

fn file(path: &Path) -> Result<(File, Stamp), CheckpointError> {
    region::open(path)
        .map_err(|error| CheckpointError::File { path: path.display().to_string(), reason: reason(&error) })
}

/// The path stands in the error around this one already.
fn reason(error: &crate::ArenaError) -> String {
    match error {
        crate::ArenaError::File { reason, .. } => reason.clone(),
        other => other.to_string(),
    }
}

/// What one file holds: its first bytes say of which format it is.
fn entries(file: &File, stamp: &Stamp, number: usize) -> Result<(CheckpointFormat, Vec<Entry>), CheckpointError> {
    let mut start = vec![0; 9.min(stamp.len as usize)];
    read_at(file, &mut start, 0)
        .map_err(|error| CheckpointError::File { path: stamp.path.display().to_string(), reason: error.to_string() })?;
    if burnpack::is_one(&start) {
        burnpack::entries(file, stamp, number)
    } else if safetensors::is_one(&stamp.path, &start) {
        Ok((CheckpointFormat::Safetensors, safetensors::entries(file, stamp, number)?))
    } else {
        let found = match start.is_empty() {
            true => "it is empty".to_owned(),
            false => format!("it starts with the bytes {start:02x?}"),
        };
        Err(CheckpointError::Format { path: stamp.path.display().to_string(), found })
    }
}

#[derive(serde::Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// A checkpoint in several files, which an index names.
fn sharded(path: &Path) -> Result<Opened, CheckpointError> {
    let wrong = |reason: String| CheckpointError::Index { index: path.display().to_string(), reason };
    let (file, stamp) = file(path)?;
    if stamp.len > MAX_INDEX {
        return Err(wrong(format!("it has {} bytes, and an index has {MAX_INDEX} at most", stamp.len)));
    }
    let mut text = vec![0; stamp.len as usize];
    read_at(&file, &mut text, 0).map_err(|error| wrong(error.to_string()))?;
    let index: Index = serde_json::from_slice(&text).map_err(|error| wrong(format!("it is unreadable: {error}")))?;

    let mut wanted: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (tensor, shard) in &index.weight_map {
        // A file beside the index, and no other: an index from elsewhere does not choose what this process reads.
        let mut parts = Path::new(shard).components();
        if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
            return Err(wrong(format!("`{tensor}` is said to be in `{shard}`, which is not a file beside the index")));
        }
        wanted.entry(shard).or_default().push(tensor);
    }
    if wanted.len() > MAX_FILES {
        return Err(wrong(format!(
            "it names {} files, and {MAX_FILES} are the most that a worker can be given",
            wanted.len()
        )));
    }
    let (mut files, mut entries) = (Vec::with_capacity(wanted.len()), Vec::new());
    for (number, (shard, tensors)) in wanted.into_iter().enumerate() {
        let (file, stamp) = self::file(&path.with_file_name(shard))?;
        let (format, found) = self::entries(&file, &stamp, number)?;
        let mut found: HashMap<String, Entry> = found.into_iter().map(|entry| (entry.name.clone(), entry)).collect();
        for tensor in tensors {
            let entry = found.remove(tensor);
            entries.push(
                entry.ok_or_else(|| wrong(format!("`{tensor}` is said to be in `{shard}`, which does not have it")))?,
            );
        }
        files.push(WeightFile { fd: file.into(), stamp, format });
    }
    entries.sort_by_key(|entry| (entry.file, entry.offset));
    names::unique(&entries)?;
    Ok((files, entries))
}
