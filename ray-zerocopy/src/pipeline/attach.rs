//! Attaching: every parameter of a skeleton is replaced by a tensor that reads the arena.

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::backend::DispatchTensor;
use burn::module::{Flag, Module, ModuleMapper, Param, ParamId, Parameter};
use burn::tensor::{Bool, DType, Device, Int, Tensor};

use super::Pipeline;
use super::copy_field::CopyOps;
use super::device_weights::DeviceWeights;
use super::path::Path;
use crate::arena::arena::Arena;
use crate::arena::manifest::TensorEntry;
use crate::error::load::LoadError;
use crate::os::sync::Mutex;
use crate::tensor::copied::{CopiedTensor, DeviceMemory};
use crate::tensor::host;
use crate::tensor::kind::Kind;
use crate::tensor::kind::TensorKind;

/// The number of bytes after which uploads to a device are waited for. Waiting is cheap compared
/// with the transfer of so many bytes.
const UPLOADING: u64 = 64 << 20;

/// What attaching a pipeline has cost.
pub(super) struct AttachReport {
    /// The tensors that could not be borrowed.
    pub(super) copied: Vec<CopiedTensor>,
    /// The time that decoding the copied fields took.
    pub(super) decoding: Duration,
    /// The weights in the memory of the device, if it is a GPU.
    pub(super) device: Option<DeviceMemory>,
}

/// Replaces the parameters of a skeleton by an arena's entries. Called by the code of
/// `#[derive(Pipeline)]`.
pub struct Attacher {
    arena: Arena,
    device: Device,
    path: Path,
    tensors: Unattached,
    copies: HashMap<String, u32>,
    flags: HashMap<String, bool>,
    structure: HashSet<String>,
    /// Tensors of blobs that several entries name, so that tied weights stay tied.
    tied: HashMap<(u32, Vec<usize>), Box<dyn Any>>,
    /// The number of entries that name each blob.
    uses: HashMap<u32, u32>,
    copied: Vec<CopiedTensor>,
    /// The arena's weights in the device's memory, opened for the first tensor.
    weights: Option<DeviceWeights>,
    /// Uploads to the device's own memory: the blob, and its shape there.
    uploaded: HashSet<(u32, Vec<usize>)>,
    /// Bytes that were uploaded since the last wait for the device.
    uploading: u64,
    decoding: Duration,
    /// The ids of matrices whose stored tensor is the transpose of the one that the module computes with.
    transposed: Arc<Mutex<HashSet<u64>>>,
    /// The first error, kept here since burn's mapper cannot fail.
    error: Option<LoadError>,
}

impl Attacher {
    /// Attaches the whole pipeline.
    pub(super) fn run<P: Pipeline>(
        pipeline: &mut P,
        arena: &Arena,
        device: &Device,
    ) -> Result<AttachReport, LoadError> {
        let manifest = arena.manifest();
        let mut uses = HashMap::new();
        manifest.tensors.iter().for_each(|tensor| *uses.entry(tensor.blob).or_default() += 1);
        let mut attacher = Self {
            arena: arena.clone(),
            device: device.clone(),
            path: Path::default(),
            tensors: Unattached::all(&manifest.tensors),
            copies: manifest.copies.iter().map(|copy| (copy.path.clone(), copy.blob)).collect(),
            flags: manifest.flags.iter().map(|flag| (flag.path.clone(), flag.enabled)).collect(),
            structure: manifest.structure.iter().cloned().collect(),
            tied: HashMap::new(),
            uses,
            copied: Vec::new(),
            weights: None,
            uploaded: HashSet::new(),
            uploading: 0,
            decoding: Duration::ZERO,
            transposed: Arc::default(),
            error: None,
        };
        pipeline.attach(&mut attacher)?;
        attacher.wait()?;
        // Attached entries were removed, so this pipeline does not have the entries that are left.
        let tensors = attacher.tensors.paths(&manifest.tensors).map(str::to_owned);
        let left = tensors.chain(attacher.copies.into_keys()).min();
        match left {
            Some(path) => Err(LoadError::Unexpected { path, pipeline: crate::error::type_name::<P>() }),
            None => Ok(AttachReport {
                copied: attacher.copied,
                decoding: attacher.decoding,
                device: attacher.weights.and_then(DeviceWeights::memory),
            }),
        }
    }

    /// Enters a field, or an element of a list or tuple.
    pub(super) fn enter(&mut self, name: &str) {
        self.path.push(name);
    }

    /// Enters an entry of a map.
    pub(super) fn enter_key(&mut self, key: &str) {
        self.path.push_key(key);
    }

    /// Leaves the value that was entered last.
    pub(super) fn exit(&mut self) {
        self.path.pop();
    }

    /// Checks that an enum has the variant that was shared.
    ///
    /// # Errors
    /// If the skeleton has another one.
    pub fn variant(&mut self, name: &'static str) -> Result<(), LoadError> {
        let found = super::compare::variant(self.path.as_str(), name);
        if self.structure.contains(&found) {
            Ok(())
        } else {
            Err(LoadError::Missing { path: found, pipeline: self.arena.pipeline().to_owned() })
        }
    }

    /// Returns the whole arena and the device, for a pipeline that does not use single entries.
    /// Marks all entries as attached.
    pub(crate) fn whole(&mut self) -> (Arena, Device) {
        self.tensors.left.fill(false);
        self.copies.clear();
        (self.arena.clone(), self.device.clone())
    }

    /// Returns the arena, the ids of matrices that are stored transposed, and the device, for a field that
    /// changes how the layers of the pipeline compute. The set is complete when all is attached.
    pub(crate) fn target(&self) -> (Arena, Arc<Mutex<HashSet<u64>>>, Device) {
        (self.arena.clone(), Arc::clone(&self.transposed), self.device.clone())
    }

    /// Takes a tensor that the field reads from the arena itself. Returns its path there.
    ///
    /// # Errors
    /// If the arena does not hold it, or holds one of another type or shape.
    pub(crate) fn take(&mut self, name: &str, dtype: DType, shape: &[usize]) -> Result<String, LoadError> {
        let arena = self.arena.clone();
        self.enter(name);
        let entry = self.entry(&arena, TensorKind::of(dtype));
        self.exit();
        let entry = entry?;
        if entry.dtype != dtype || entry.shape != shape {
            let found = format!("{:?} of shape {:?}", entry.dtype, entry.shape);
            let reason = format!("the graph has {dtype:?} of shape {shape:?}, and the arena {found}");
            return Err(LoadError::Tensor { path: entry.path.clone(), reason });
        }
        Ok(entry.path.clone())
    }

    /// Records the tensors that such a pipeline could not borrow.
    pub(crate) fn note_copied(&mut self, copied: Vec<CopiedTensor>) {
        self.copied.extend(copied);
    }

    /// Whether this field was copied when it was shared.
    pub(super) fn is_copied(&self) -> bool {
        self.copies.contains_key(self.path.as_str())
    }

    pub(super) fn copy<T>(&mut self, value: &mut T, ops: CopyOps<T>) -> Result<(), LoadError> {
        let path = self.path.as_str();
        let Some(blob) = self.copies.remove(path) else { return Err(self.missing()) };
        let begun = Instant::now();
        *value = (ops.decode)(&self.arena.slice(blob))
            .map_err(|reason| LoadError::Decode { path: path.to_owned(), reason })?;
        self.decoding += begun.elapsed();
        Ok(())
    }

    pub(super) fn module<M: Module>(&mut self, module: &mut M) -> Result<(), LoadError> {
        // Cheap: parameters are reference counted. The clone is mapped and takes the place of the
        // original.
        *module = module.clone().map(&mut Mapper(self));
        self.error.take().map_or(Ok(()), Err)
    }

    pub(super) fn bare<const D: usize, K: Kind>(
        &mut self,
        kind: TensorKind,
        tensor: &mut Tensor<D, K>,
    ) -> Result<(), LoadError> {
        let arena = self.arena.clone();
        let entry = self.entry(&arena, kind)?;
        *tensor = self.tensor(entry)?;
        self.note(entry, tensor)
    }

    /// The path of the value that the walk is in.
    pub(crate) fn path(&self) -> String {
        self.path.as_str().to_owned()
    }

    fn missing(&self) -> LoadError {
        LoadError::Missing { path: self.path.as_str().to_owned(), pipeline: self.arena.pipeline().to_owned() }
    }

    /// Removes the entry of the current path from those that are not attached yet.
    fn entry<'a>(&mut self, arena: &'a Arena, kind: TensorKind) -> Result<&'a TensorEntry, LoadError> {
        let entries = &arena.manifest().tensors;
        let entry = self.tensors.take(entries, self.path.as_str()).ok_or_else(|| self.missing())?;
        if entry.kind == kind {
            return Ok(entry);
        }
        let reason = format!("a tensor of kind {kind} is expected, and the arena holds one of kind {}", entry.kind);
        Err(LoadError::Tensor { path: entry.path.clone(), reason })
    }

    fn tensor<const D: usize, K: Kind>(&mut self, entry: &TensorEntry) -> Result<Tensor<D, K>, LoadError> {
        if self.weights.is_none() {
            self.weights = Some(DeviceWeights::open(&self.arena, &self.device)?);
        }
        let new = |device: &Device| {
            let shared = self.weights.as_ref().filter(|_| entry.shape.len() == D && entry.kind == K::STORED);
            if let Some(kind) = shared.and_then(|weights| weights.tensor(entry, device)) {
                return Ok(Tensor::from_dispatch(DispatchTensor { kind, autodiff: Default::default() }));
            }
            host::tensor::<D, K>(self.arena.borrow(entry.blob), &entry.shape, entry.dtype, device)
                .map_err(|reason| LoadError::Tensor { path: entry.path.clone(), reason })
        };
        if self.uses.get(&entry.blob).is_none_or(|&uses| uses <= 1) {
            return new(&self.device);
        }
        let key = (entry.blob, entry.shape.clone());
        if let Some(tensor) = self.tied.get(&key).and_then(|tensor| tensor.downcast_ref::<Tensor<D, K>>()) {
            return Ok(tensor.clone());
        }
        let tensor = new(&self.device)?;
        self.tied.insert(key, Box::new(tensor.clone()));
        Ok(tensor)
    }

    /// Checks whether the tensor's storage is in the arena, and records the tensor as copied
    /// otherwise. So no copy goes unreported.
    fn note<const D: usize, K: Kind>(&mut self, entry: &TensorEntry, tensor: &Tensor<D, K>) -> Result<(), LoadError> {
        let address = host::address(tensor);
        if address.is_some_and(|address| self.arena.contains(address))
            || self.weights.as_ref().is_some_and(|weights| weights.has(tensor))
        {
            return Ok(());
        }
        // Tied tensors are one tensor in the device's memory, too: only the first of them is
        // recorded.
        let uploaded = address.is_none() && !self.uploaded.insert((entry.blob, entry.shape.clone()));
        let bytes = self.arena.slice(entry.blob).len() as u64;
        if uploaded || bytes == 0 {
            return Ok(());
        }
        self.copied.push(CopiedTensor { path: entry.path.clone(), bytes });
        self.uploading += bytes;
        if self.uploading >= UPLOADING { self.wait() } else { Ok(()) }
    }

    /// Waits until all uploads to the device are complete. Until then burn and the driver may hold
    /// a second copy in host memory.
    fn wait(&mut self) -> Result<(), LoadError> {
        if std::mem::take(&mut self.uploading) == 0 {
            return Ok(());
        }
        let device = &self.device;
        let done = crate::panics::caught(|| device.sync().map_err(|error| error.to_string()));
        done.and_then(|done| done).map_err(|reason| LoadError::Upload { reason })
    }

    /// Returns the parameter with its tensor from the arena. On an error, keeps the error and
    /// returns the parameter as it was.
    fn parameter<const D: usize, K: Kind>(
        &mut self,
        kind: TensorKind,
        param: Param<Tensor<D, K>>,
    ) -> Param<Tensor<D, K>>
    where
        Tensor<D, K>: Parameter,
    {
        let arena = self.arena.clone();
        let found = self.entry(&arena, kind).and_then(|entry| Ok((entry, self.tensor::<D, K>(entry)?)));
        let (entry, tensor) = match found {
            Ok(found) => found,
            Err(error) => {
                self.error = Some(error);
                return param;
            }
        };
        let expected = param.lazy_shape();
        let id = entry.param.map_or(param.id, ParamId::from);
        let loaded = param.transform_for_load(tensor, id);
        let found = loaded.lazy_shape();
        // An uninitialised parameter that burn stores transposed reports its stored shape.
        if found != expected && entry.shape != expected.to_vec() {
            self.error = Some(LoadError::Tensor {
                path: entry.path.clone(),
                reason: format!(
                    "the rebuilt pipeline has shape {:?}, and the arena {:?}",
                    expected.to_vec(),
                    found.to_vec()
                ),
            });
            return loaded;
        }
        if D == 2 && found.to_vec() != entry.shape {
            self.transposed.lock().insert(id.val());
        }
        if let Err(error) = self.note(entry, &loaded.base()) {
            self.error = Some(error);
        }
        loaded
    }
}

/// The entries that are not attached yet.
struct Unattached {
    left: Vec<bool>,
    /// The index after the last match. Fields are visited in the same order as when the pipeline
    /// was shared, except for maps.
    next: usize,
    /// The index of each path, made on first use.
    by_path: Option<HashMap<String, usize>>,
}

impl Unattached {
    fn all(entries: &[TensorEntry]) -> Self {
        Self { left: vec![true; entries.len()], next: 0, by_path: None }
    }

    fn take<'a>(&mut self, entries: &'a [TensorEntry], path: &str) -> Option<&'a TensorEntry> {
        let index = match entries.get(self.next) {
            Some(entry) if entry.path == path => self.next,
            _ => {
                let all = || entries.iter().enumerate().map(|(index, entry)| (entry.path.clone(), index)).collect();
                *self.by_path.get_or_insert_with(all).get(path)?
            }
        };
        self.next = index + 1;
        let left = self.left.get_mut(index)?;
        std::mem::take(left).then(|| &entries[index])
    }

    fn paths<'a>(&self, entries: &'a [TensorEntry]) -> impl Iterator<Item = &'a str> {
        entries.iter().zip(&self.left).filter(|(_, left)| **left).map(|(entry, _)| entry.path.as_str())
    }
}

/// burn's walk over the parameters of a module.
struct Mapper<'a>(&'a mut Attacher);

macro_rules! map {
    ($name:ident, $tensor:ty, $kind:ident) => {
        fn $name<const D: usize>(&mut self, param: Param<$tensor>) -> Param<$tensor> {
            match self.0.error {
                Some(_) => param,
                None => self.0.parameter(TensorKind::$kind, param),
            }
        }
    };
}

impl ModuleMapper for Mapper<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.0.path.push(name);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.0.path.pop();
    }

    map!(map_float, Tensor<D>, Float);
    map!(map_int, Tensor<D, Int>, Int);
    map!(map_bool, Tensor<D, Bool>, Bool);

    fn map_flag(&mut self, flag: Param<Flag>) -> Param<Flag> {
        match self.0.flags.get(self.0.path.as_str()) {
            Some(&enabled) => flag.with_value(enabled),
            None => flag,
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::DType;

    use super::Unattached;
    use crate::arena::manifest::TensorEntry;
    use crate::tensor::kind::TensorKind;

    #[test]
    fn each_entry_is_taken_once_in_any_order() {
        let entry = |path: &str| TensorEntry {
            path: path.to_owned(),
            blob: 0,
            kind: TensorKind::Float,
            dtype: DType::F32,
            shape: vec![1],
            param: None,
            why: None,
        };
        let entries = ["a", "b", "c", "d"].map(entry);
        let mut unattached = Unattached::all(&entries);
        let mut take = |path: &str| unattached.take(&entries, path).map(|entry| entry.path.as_str());
        // In order, then after and before the next entry, and an entry that does not exist.
        assert_eq!(["a", "c", "b", "e"].map(&mut take), [Some("a"), Some("c"), Some("b"), None]);
        assert_eq!(["a", "b", "c"].map(&mut take), [None; 3], "twice");
        assert_eq!(unattached.paths(&entries).collect::<Vec<_>>(), ["d"]);
    }
}
