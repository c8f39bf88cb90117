//! Detection of files that are not checkpoints but are often mistaken for them.

use std::fs::File;

use crate::arena::io::read_at;
use crate::arena::region::Stamp;
use crate::error::checkpoint::CheckpointError;

/// Number of bytes inspected at the start of a file. The magic of the tar format is at byte 257.
pub(super) const START: u64 = 512;
/// Maximum size of a safetensors header, as defined by the format.
const MAX_HEADER: u64 = 100_000_000;

/// Describes a file of a known foreign format. Returns `None` if the format is unknown.
pub(super) fn describe(stamp: &Stamp, start: &[u8]) -> Option<String> {
    let name = stamp.path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    text(start).or_else(|| binary(start)).or_else(|| by_name(&name, start))
}

/// Text files: responses of a server or git in place of the file.
fn text(start: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(start);
    let text = text.trim_start_matches('\u{feff}').trim_start();
    if let Some(rest) = text.strip_prefix("version https://git-lfs.github.com/spec/") {
        let size = rest.lines().find_map(|line| line.strip_prefix("size ")).map(str::trim);
        let size = size.filter(|size| size.bytes().all(|byte| byte.is_ascii_digit()));
        let size = size.map_or(String::new(), |size| format!(" (of {size} bytes)"));
        return Some(format!("a Git LFS pointer to it{size}: run `git lfs pull` in its folder"));
    }
    let lower = text.get(..text.len().min(64)).unwrap_or(text).to_ascii_lowercase();
    if lower.starts_with("<!doctype html") || lower.starts_with("<html") || lower.starts_with("<head") {
        return Some(
            "a web page: the link leads to a page about the file, or to a login; fetch the file itself (`resolve` instead of `blob` on huggingface.co)"
                .to_owned(),
        );
    }
    if lower.starts_with("<?xml") || lower.starts_with("<error") {
        return Some(format!("an XML document, as servers send for an error: {}", first_line(text)));
    }
    let json = text.starts_with('{') && text[1..].trim_start().starts_with(['"', '}']);
    json.then(|| format!("a JSON text: {}", first_line(text)))
}

fn first_line(text: &str) -> String {
    let line: String = text.lines().next().unwrap_or_default().chars().take(80).collect();
    format!("`{}`", line.replace('`', "'"))
}

fn binary(start: &[u8]) -> Option<String> {
    let at = |offset: usize, magic: &[u8]| start.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    let found = if at(0, b"GGUF") || at(0, b"ggjt") || at(0, b"tjgg") || at(0, b"lmgg") {
        "weights in llama.cpp's format (GGUF); take the model's `.safetensors`"
    } else if at(0, b"\x89HDF\r\n\x1a\n") {
        "an HDF5 file, as Keras writes (`.h5`); take the model's `.safetensors`"
    } else if at(0, b"\x93NUMPY") {
        "a numpy array (`.npy`); write it with `safetensors.numpy.save_file`, which gives it a name"
    } else if at(0, &[0x1f, 0x8b]) {
        "compressed with gzip; unpack it with `gunzip`, or `tar xzf`"
    } else if at(0, &[0xfd, b'7', b'z', b'X', b'Z', 0]) {
        "compressed with xz; unpack it with `unxz`"
    } else if at(0, &[0x28, 0xb5, 0x2f, 0xfd]) {
        "compressed with zstd; unpack it with `unzstd`"
    } else if at(0, b"BZh") {
        "compressed with bzip2; unpack it with `bunzip2`"
    } else if at(0, b"7z\xbc\xaf\x27\x1c") {
        "a 7z archive; unpack it"
    } else if at(257, b"ustar") {
        "a tar archive; unpack it, or, if PyTorch before 0.1.10 wrote it, load it there and `torch.save` it again"
    } else if at(4, b"TFL3") {
        "a TensorFlow Lite model; take the model's `.safetensors`"
    } else if at(0, b"%PDF") {
        "a PDF document"
    } else if is_onnx(start) {
        "an ONNX model, which has operations; take the `.safetensors` that it was exported from"
    } else {
        return None;
    };
    Some(found.to_owned())
}

/// Returns `true` for a protocol buffer that starts with a small version number, followed by the
/// producer's name or the required operator sets.
fn is_onnx(start: &[u8]) -> bool {
    let &[0x08, 1..=30, field, len, ..] = start else { return false };
    let producer =
        || start.get(4..4 + usize::from(len).min(16)).is_some_and(|name| name.iter().all(u8::is_ascii_graphic));
    match field {
        0x12 => (1..=64).contains(&len) && producer(),
        // The graph or the operator sets: either may come first.
        0x3a | 0x42 => true,
        _ => false,
    }
}

fn by_name(name: &str, start: &[u8]) -> Option<String> {
    let found = if name.ends_with(".onnx") {
        "an ONNX model, which has operations; take the `.safetensors` that it was exported from"
    } else if name.ends_with(".index")
        || name.ends_with(".meta")
        || name.contains(".data-0")
        || name.ends_with("saved_model.pb")
    {
        "a part of a TensorFlow checkpoint; take the model's `.safetensors`"
    } else if name.ends_with(".msgpack") {
        "weights of Flax; take the model's `.safetensors`"
    } else if start.first() == Some(&0x80) && start.get(1).is_some_and(|&version| (2..=5).contains(&version)) {
        "a pickle that `torch.save` has not written; load it in Python, and write its arrays with `safetensors`"
    } else {
        return None;
    };
    Some(found.to_owned())
}

/// Validates the length in front of a safetensors header.
///
/// # Errors
/// If the file is shorter than its header, like a truncated download, or the number cannot be a
/// length.
pub(super) fn header(stamp: &Stamp, start: &[u8]) -> Result<(), CheckpointError> {
    let path = stamp.path.display().to_string();
    let Some((length, rest)) = start.split_first_chunk() else {
        let reason = match stamp.len {
            0 => "it is empty".to_owned(),
            len => format!("it has {len} bytes, and its header has 8 at least"),
        };
        return Err(CheckpointError::Cut { path, reason });
    };
    let header = u64::from_le_bytes(*length);
    if header > MAX_HEADER || rest.first().is_some_and(|&byte| byte != b'{') {
        let shown = &start[..start.len().min(9)];
        let found = format!("it starts with the bytes {shown:02x?}, and not with the length of a header and a `{{`");
        return Err(CheckpointError::Format { path, found });
    }
    let needed = header + 8;
    if needed > stamp.len {
        let reason = missing_text(stamp.len, needed, "its header alone takes");
        return Err(CheckpointError::Cut { path, reason });
    }
    Ok(())
}

/// Describes how much of a safetensors file is missing. Returns `None` if the header is invalid or
/// all tensors fit into the file.
pub(super) fn truncation(file: &File, stamp: &Stamp) -> Option<CheckpointError> {
    let mut length = [0; 8];
    read_at(file, &mut length, 0).ok()?;
    let header = u64::from_le_bytes(length);
    if header > MAX_HEADER || header + 8 > stamp.len {
        return None;
    }
    let mut text = vec![0; header as usize];
    read_at(file, &mut text, 8).ok()?;
    let tensors: std::collections::HashMap<String, Ends> = serde_json::from_slice(&text).ok()?;
    let end = tensors.values().filter_map(|ends| ends.data_offsets).map(|[_, end]| end).max()?;
    let needed = end.checked_add(header + 8)?;
    // Larger than any disk, so the header is wrong and the file is not truncated.
    (needed > stamp.len && needed < 1 << 50).then(|| CheckpointError::Cut {
        path: stamp.path.display().to_string(),
        reason: missing_text(stamp.len, needed, "its header and its tensors take"),
    })
}

/// The needed part of a tensor's entry in the header. The metadata entry has none.
#[derive(serde::Deserialize)]
struct Ends {
    data_offsets: Option<[u64; 2]>,
}

fn missing_text(found: u64, needed: u64, what: &str) -> String {
    format!("{} of its bytes are missing: {what} {needed}, and it has {found}", needed - found)
}
