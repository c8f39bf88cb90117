//! Resolves a path to files and reads their headers.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Component, Path};

use super::entry::Entry;
use super::options::CheckpointOptions;
use super::{CheckpointFormat, WeightFile, burnpack, folder, foreign, names, pytorch, safetensors};
use crate::arena::io::read_at;
use crate::arena::region;
use crate::arena::region::Stamp;
use crate::error::checkpoint::CheckpointError;
use crate::os::fd_packet::MAX_FDS;

/// Maximum plausible size of an index.
const MAX_INDEX: u64 = 100_000_000;
/// Maximum number of files: a worker receives a descriptor for each file, and one for the arena.
const MAX_FILES: usize = MAX_FDS - 2;

type Opened = (Vec<WeightFile>, Vec<Entry>);

pub(super) fn open(path: &Path, options: &CheckpointOptions) -> Result<Opened, CheckpointError> {
    let variant = options.variant.as_deref();
    let path = if path.is_dir() { folder::weights(path, variant)? } else { path.to_owned() };
    let key = options.key.as_deref();
    if folder::is_index(&path) {
        return sharded(&path, key);
    }
    let (file, stamp) = file(&path)?;
    let (format, entries) = entries(&file, &stamp, 0, key)?;
    names::unique(&entries)?;
    Ok((vec![WeightFile { fd: file.into(), stamp, format }], entries))
}

fn file(path: &Path) -> Result<(File, Stamp), CheckpointError> {
    region::open(path)
        .map_err(|error| CheckpointError::File { path: path.display().to_string(), reason: reason(&error) })
}

/// Error text without the path, which the enclosing error already contains.
fn reason(error: &crate::error::arena::ArenaError) -> String {
    match error {
        crate::error::arena::ArenaError::File { reason, .. } => reason.clone(),
        other => other.to_string(),
    }
}

/// Detects the format of a file by its first bytes, and reads its entries.
fn entries(
    file: &File,
    stamp: &Stamp,
    number: usize,
    key: Option<&str>,
) -> Result<(CheckpointFormat, Vec<Entry>), CheckpointError> {
    let mut start = vec![0; foreign::START.min(stamp.len) as usize];
    read_at(file, &mut start, 0)
        .map_err(|error| CheckpointError::File { path: stamp.path.display().to_string(), reason: error.to_string() })?;
    if burnpack::is_one(&start) {
        return burnpack::entries(file, stamp, number);
    }
    if pytorch::is_one(&start) {
        return Ok((CheckpointFormat::PyTorch, pytorch::entries(file, stamp, number, &start, key)?));
    }
    let header = foreign::header(stamp, &start);
    // A plausible safetensors header takes precedence: it may start like another format by chance.
    if header.is_err()
        && let Some(found) = foreign::describe(stamp, &start)
    {
        return Err(CheckpointError::Foreign { path: stamp.path.display().to_string(), found });
    }
    if safetensors::is_one(&stamp.path, &start) {
        header?;
        let entries = safetensors::entries(file, stamp, number);
        // The crate that parses the header does not report how much is missing.
        let entries = entries.map_err(|error| foreign::truncation(file, stamp).unwrap_or(error))?;
        return Ok((CheckpointFormat::Safetensors, entries));
    }
    let found = if start.is_empty() {
        "it is empty".to_owned()
    } else {
        format!("it starts with the bytes {:02x?}", &start[..start.len().min(9)])
    };
    Err(CheckpointError::Format { path: stamp.path.display().to_string(), found })
}

#[derive(serde::Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Opens a checkpoint in several files that are listed in an index.
fn sharded(path: &Path, key: Option<&str>) -> Result<Opened, CheckpointError> {
    let index_error = |reason: String| CheckpointError::Index { index: path.display().to_string(), reason };
    let (file, stamp) = file(path)?;
    if stamp.len > MAX_INDEX {
        return Err(index_error(format!("it has {} bytes, and an index has {MAX_INDEX} at most", stamp.len)));
    }
    let mut text = vec![0; stamp.len as usize];
    read_at(&file, &mut text, 0).map_err(|error| index_error(error.to_string()))?;
    let index: Index =
        serde_json::from_slice(&text).map_err(|error| index_error(format!("it is unreadable: {error}")))?;

    let mut wanted: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (tensor, shard) in &index.weight_map {
        // Only files next to the index are allowed: a downloaded index must not choose which files
        // this process reads.
        let mut parts = Path::new(shard).components();
        if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
            return Err(index_error(format!(
                "`{tensor}` is said to be in `{shard}`, which is not a file beside the index"
            )));
        }
        wanted.entry(shard).or_default().push(tensor);
    }
    if wanted.len() > MAX_FILES {
        return Err(index_error(format!(
            "it names {} files, and {MAX_FILES} are the most that a worker can be given",
            wanted.len()
        )));
    }
    let (mut files, mut entries) = (Vec::with_capacity(wanted.len()), Vec::new());
    for (number, (shard, tensors)) in wanted.into_iter().enumerate() {
        let (file, stamp) = self::file(&path.with_file_name(shard))?;
        let (format, found) = self::entries(&file, &stamp, number, key)?;
        let mut found: HashMap<String, Entry> = found.into_iter().map(|entry| (entry.name.clone(), entry)).collect();
        for tensor in tensors {
            let entry = found.remove(tensor);
            entries.push(entry.ok_or_else(|| {
                index_error(format!("`{tensor}` is said to be in `{shard}`, which does not have it"))
            })?);
        }
        files.push(WeightFile { fd: file.into(), stamp, format });
    }
    entries.sort_by_key(|entry| (entry.file, entry.offset));
    names::unique(&entries)?;
    Ok((files, entries))
}
