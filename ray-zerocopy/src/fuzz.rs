//! Entry points for fuzz targets and corpus tests, one for each parser of untrusted bytes. They
//! take bytes, and return an error or nothing.
//!
//! Each function runs the library's own code on the bytes. It panics if an invariant is violated.
//! Rejected bytes are an `Err`, which is not a failure.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsRawFd, OwnedFd};

use burn::tensor::{Bool, Bytes, DType, Device, Float, Int, Tensor};
use serde::{Deserialize, Serialize};

use crate::arena::arena::Arena;
use crate::arena::builder::{ArenaBuilder, sealed_container};
use crate::arena::io::write_at;
use crate::arena::layout::Head;
use crate::arena::manifest::{HexId, Manifest, TensorEntry};
use crate::checkpoint::Checkpoint;
use crate::checkpoint::source::{Change, FromFile, Scratch};
use crate::error::arena::ArenaError;
use crate::os::sys::memfd::{create, seal};
use crate::remote::wire::{Reader, WireError};
use crate::remote::wire_tensors::Tensors;
use crate::tensor::dtype;
use crate::tensor::kind::Kind;
use crate::tensor::kind::TensorKind;
use crate::tensor::source::BlobSource;

/// Opens bytes as an arena, verifies its checksums and creates every tensor.
///
/// # Errors
/// As [`Arena::from_memfd`] and [`Arena::verify`].
pub fn arena(bytes: &[u8]) -> Result<(), ArenaError> {
    same_head(bytes);
    check(&Arena::from_memfd(memory(bytes)?)?)
}

/// Copies bytes into a sealed memfd.
fn memory(bytes: &[u8]) -> Result<OwnedFd, ArenaError> {
    let system_error = |(call, error): (&str, std::io::Error)| ArenaError::system(call, bytes.len() as u64, error);
    let fd = create("ray-zerocopy-fuzz", bytes.len() as u64).map_err(system_error)?;
    write_at(&fd, bytes, 0).map_err(|error| system_error(("pwrite", error)))?;
    seal(fd).map_err(|error| system_error(("fcntl(F_ADD_SEALS)", error)))
}

/// Verifies the checksums of an arena, and creates every tensor.
fn check(arena: &Arena) -> Result<(), ArenaError> {
    assert!(arena.stored_bytes() <= arena.size_bytes(), "more is stored than there is");
    let listed = arena.tensors().map(|tensor| tensor.bytes).fold(0, u64::saturating_add);
    assert_eq!(listed, arena.weight_bytes());
    let verified = arena.verify();
    for entry in &arena.manifest().tensors {
        make(arena, entry);
    }
    verified
}

/// Compares this crate's parser of a container's head with burnpack's own: either both accept the
/// bytes with the same result, or both reject them.
fn same_head(bytes: &[u8]) {
    let theirs = burn_pack::Reader::from_bytes(Bytes::from_bytes_vec(bytes.to_vec()))
        .map(|reader| (reader.metadata().clone(), reader.into_tensors().unwrap_or_default()));
    let (ours, theirs) = match (Head::read(bytes, bytes.len() as u64), theirs) {
        (Ok(head), Ok(theirs)) => {
            let tensors = head.tensors.into_iter().map(|(name, found)| {
                let place = found.offset as usize..(found.offset + found.len) as usize;
                (name, found.dtype, found.shape, found.param, bytes[place].to_vec())
            });
            assert_eq!(head.texts, theirs.0);
            (tensors.collect::<Vec<_>>(), theirs.1)
        }
        (Err(_), Err(_)) => return,
        (ours, theirs) => panic!("{:?}, and burnpack's reader says {:?}", ours.err(), theirs.err()),
    };
    let theirs: Vec<_> = theirs.into_iter().filter_map(|tensor| tensor.into_parts().ok()).collect();
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(&theirs) {
        let (name, dtype, shape, param, bytes) = theirs;
        assert_eq!((&ours.0, &ours.1, ours.3, &ours.4[..]), (name, dtype, *param, &bytes[..]));
        assert_eq!(ours.2, shape.to_vec());
    }
}

/// Parses bytes as a traced graph, and formats the information that is displayed about it.
///
/// # Errors
/// As [`TracedGraph::from_arena`](crate::jit::TracedGraph::from_arena).
pub fn graph(bytes: &[u8]) -> Result<(), String> {
    let info = crate::jit::graph::info::info_of(bytes).map_err(|error| error.to_string())?;
    assert_eq!(info.steps().count(), info.operations());
    assert_eq!(info.outputs().count(), info.output_operands().count());
    // Every tensor that is read exists: no operand is displayed as nothing.
    let operands = info.steps().flat_map(|step| step.inputs).chain(info.output_operands());
    for operand in operands {
        assert_ne!(operand.to_string(), "nothing");
    }
    Ok(())
}

/// Parses bytes as the method table of a TorchScript module, which needs no LibTorch, and checks
/// calls of each method.
///
/// # Errors
/// As [`TorchScript::from_arena`](crate::jit::TorchScript::from_arena).
pub fn module(bytes: &[u8]) -> Result<(), String> {
    crate::jit::torchscript::checked_calls(bytes)
}

/// Opens bytes as the manifest of an arena whose container and checksums are valid, so that only
/// the manifest is tested.
///
/// # Errors
/// As [`arena`].
pub fn manifest(bytes: &[u8]) -> Result<(), ArenaError> {
    match container_of(bytes, |_| ()) {
        Ok(container) => arena(&container),
        Err(reason) => Err(ArenaError::NotAnArena(reason)),
    }
}

/// Opens bytes as the manifest of a variant of the base, as [`manifest`] does.
///
/// # Errors
/// As [`arena`], and if it is not a valid variant of the base.
pub fn variant(bytes: &[u8]) -> Result<(), ArenaError> {
    let base = base()?;
    let container = container_of(bytes, |manifest| {
        // A fuzzer cannot find the id of the base by itself.
        if let Some(first) = manifest.bases.first_mut() {
            *first = HexId(base.id());
        }
    });
    let container = container.map_err(ArenaError::NotAnArena)?;
    let arena = Arena::from_memfd_on(memory(&container)?, &base)?;
    assert!(arena.bases().all(|(id, _)| id == base.id()));
    check(&arena)
}

/// A base for [`variant`], which is the same in each process.
fn base() -> Result<Arena, ArenaError> {
    let mut builder = ArenaBuilder::new("base");
    for (path, dtype, len) in [("f", DType::F32, 24), ("i", DType::I64, 16)] {
        let bytes = bytes::Bytes::from(vec![2; len]);
        builder.constant(path, dtype, vec![len / dtype.size()], bytes)?;
    }
    builder.copy("c", vec![2; 6]);
    builder.seal(&mut |_| ())
}

/// The manifest of a valid variant, as a seed for [`variant`].
///
/// # Errors
/// If there is no memory.
pub fn variant_seed() -> Result<String, ArenaError> {
    let mut builder = ArenaBuilder::new("P").on(&base()?);
    for (path, dtype, byte, len) in [("a", DType::F32, 2, 24), ("b", DType::I64, 2, 16), ("f", DType::F32, 1, 24)] {
        builder.constant(path, dtype, vec![len / dtype.size()], bytes::Bytes::from(vec![byte; len]))?;
    }
    builder.copy("d", vec![2; 6]);
    let arena = builder.seal(&mut |_| ())?;
    serde_json::to_string(arena.manifest()).map_err(|error| ArenaError::NotAnArena(error.to_string()))
}

/// Returns a valid container with bytes as its manifest, and tensors whose bytes are all 1.
fn container_of(bytes: &[u8], change: impl FnOnce(&mut Manifest)) -> Result<Bytes, String> {
    let text = String::from_utf8_lossy(bytes);
    // A manifest that parses gets its correct fingerprint: a fuzzer cannot find that by itself.
    let text = match serde_json::from_str::<Manifest>(&text) {
        Ok(mut manifest)
            if manifest.tensors.iter().all(|entry| !dtype::name(entry.dtype).ends_with("impossible scheme")) =>
        {
            change(&mut manifest);
            manifest.fingerprint = Manifest::fingerprint(&manifest.pipeline, &manifest.tensors);
            serde_json::to_string(&manifest).unwrap_or_default()
        }
        _ => text.into_owned(),
    };
    let tensor = |name: &str, dtype: DType, bytes: usize| {
        let shape = vec![bytes / dtype.size().max(1)];
        burn_pack::Tensor::new(name.to_owned(), dtype, shape, None, Bytes::from_bytes_vec(vec![1; bytes]))
    };
    let blobs = vec![
        tensor("f", DType::F32, 24),
        tensor("h", DType::F16, 12),
        tensor("i", DType::I64, 16),
        tensor("copied: c", DType::U8, 6),
        tensor("e", DType::F32, 0),
    ];
    sealed_container(blobs, &text)
}

/// Opens bytes as a checkpoint, and reads every tensor: unchanged, and with the changes that a
/// pipeline may request.
///
/// # Errors
/// As [`Checkpoint::open`], or if a tensor cannot be read.
pub fn checkpoint(bytes: &[u8]) -> Result<(), String> {
    same_head(bytes);
    let system_error = |(call, error): (&str, std::io::Error)| format!("{call}: {error}");
    let fd = create("ray-zerocopy-fuzz", bytes.len() as u64).map_err(system_error)?;
    write_at(&fd, bytes, 0).map_err(|error| system_error(("pwrite", error)))?;
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let checkpoint = Checkpoint::open(path).map_err(|error| error.to_string())?;
    read_all(&checkpoint)
}

/// Reads every tensor of a checkpoint: unchanged, and with the changes that a pipeline may request.
fn read_all(checkpoint: &Checkpoint) -> Result<(), String> {
    let fds = checkpoint.fds().map_err(|error| error.to_string())?;
    for entry in &checkpoint.entries {
        let Ok(dtype) = entry.dtype else { continue };
        let transpose = entry.shape.len() == 2;
        let cast = dtype.is_float().then_some(DType::F16);
        for change in [Change { transpose: false, cast: None }, Change { transpose, cast }] {
            let is_unchanged = !change.transpose && change.cast.is_none();
            let source = FromFile::new(entry, &fds, dtype, change, &Scratch::default());
            let mut read = 0;
            let streamed = source.stream(&mut |bytes| {
                read += bytes.len();
                Ok(())
            });
            assert!(streamed.is_err() || read == source.len(), "{read} bytes of {}", source.len());
            assert!(!is_unchanged || streamed.is_ok(), "a tensor that is not in its file: {streamed:?}");
            source.sample()?;
        }
    }
    Ok(())
}

/// Wraps bytes as the pickle of a state dict into an archive with a storage of 256 bytes named `0`,
/// and reads every tensor.
///
/// # Errors
/// As [`Checkpoint::open`], or if a tensor cannot be read.
pub fn pytorch(bytes: &[u8]) -> Result<(), String> {
    checkpoint(&archive(bytes))
}

/// Builds the archive that `torch.save` would write around a pickle, without checksums, which no
/// reader checks.
fn archive(pickle: &[u8]) -> Vec<u8> {
    let (mut file, mut table) = (Vec::new(), Vec::new());
    for (name, bytes) in [("a/data.pkl", pickle), ("a/byteorder", b"little"), ("a/data/0", &[1; 256])] {
        let [name_len, len] = [name.len() as u32, bytes.len() as u32].map(u32::to_le_bytes);
        let head = [&[0; 14][..], &len, &len, &name_len[..2], &[0; 2]].concat();
        table.extend(
            [b"PK\x01\x02\0\0", &head[..], &[0; 10], &(file.len() as u32).to_le_bytes(), name.as_bytes()].concat(),
        );
        file.extend([b"PK\x03\x04", &head[..], name.as_bytes(), bytes].concat());
    }
    let places = [table.len() as u32, file.len() as u32].map(u32::to_le_bytes);
    [&file, &table, &b"PK\x05\x06\0\0\0\0\x03\0\x03\0"[..], &places[0], &places[1], &[0; 2]].concat()
}

fn make(arena: &Arena, entry: &TensorEntry) {
    match entry.kind {
        TensorKind::Float => of_kind::<Float>(arena, entry),
        TensorKind::Int => of_kind::<Int>(arena, entry),
        TensorKind::Bool => of_kind::<Bool>(arena, entry),
    }
}

fn of_kind<K: Kind>(arena: &Arena, entry: &TensorEntry) {
    match entry.shape.len() {
        1 => of_rank::<1, K>(arena, entry),
        2 => of_rank::<2, K>(arena, entry),
        3 => of_rank::<3, K>(arena, entry),
        _ => of_rank::<4, K>(arena, entry),
    }
}

fn of_rank<const D: usize, K: Kind>(arena: &Arena, entry: &TensorEntry) {
    let bytes = arena.borrow(entry.blob);
    let (start, len) = (bytes.as_ptr(), bytes.len());
    let Ok(tensor) = crate::tensor::host::tensor::<D, K>(bytes, &entry.shape, entry.dtype, &Device::flex()) else {
        return;
    };
    assert_eq!(tensor.dims().to_vec(), entry.shape);
    if len > 0 && !matches!(entry.dtype, DType::QFloat(_)) {
        assert!(arena.contains(start), "a tensor outside of the arena");
        // Reads every byte.
        assert_eq!(tensor.into_data().as_bytes().len(), len);
    }
}

/// A recursive type to decode messages into.
#[derive(Serialize, Deserialize)]
enum Nested {
    Leaf,
    Node { children: Vec<Nested>, note: Option<String> },
    Wrapped(Box<Nested>),
}

/// Parses bytes as a message between owner and worker: the first byte selects the type, the others
/// are a frame.
///
/// # Errors
/// If the frame is malformed, or does not hold the values.
pub fn message(bytes: &[u8]) -> Result<(), String> {
    let (&kind, frame) = bytes.split_first().ok_or("there is nothing")?;
    let payload = crate::engine::local::protocol::any(kind, frame).map_err(|error| error.to_string())?;
    let total: usize = payload.segments.iter().map(bytes::Bytes::len).sum();
    assert!(total <= frame.len(), "more bytes than arrived");
    let mut reader = Reader::new(payload, Device::flex());
    values(kind, &mut reader).map_err(|error| error.to_string())
}

fn values(kind: u8, reader: &mut Reader) -> Result<(), WireError> {
    match kind >> 2 {
        0 => reader.value::<(String, i32, f64, bool, char)>().map(drop),
        1 => reader.value::<serde_json::Value>().map(drop),
        2 => reader.value::<Nested>().map(drop),
        3 => reader.value::<HashMap<String, Vec<Option<u16>>>>().map(drop),
        4 => take::<Tensor<2>>(reader),
        5 => take::<Vec<Tensor<1, Int>>>(reader),
        6 => take::<Option<Tensor<3, Bool>>>(reader),
        7 => take::<BTreeMap<String, Tensor<2>>>(reader),
        8 => take::<[Tensor<1>; 3]>(reader),
        9 => take::<Result<(Tensor<1>, Tensor<4>), String>>(reader),
        _ => {
            reader.value::<u64>()?;
            reader.value::<Vec<u8>>()?;
            reader.value::<()>()
        }
    }
}

fn take<T: Tensors>(reader: &mut Reader) -> Result<(), WireError> {
    T::take(reader).map(drop)
}
