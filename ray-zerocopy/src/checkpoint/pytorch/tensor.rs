//! Tensors of a pickle: interprets the calls that build them as shapes and locations.

use std::collections::HashMap;

use burn::tensor::{BoolStore, DType};

use super::pickle::value::{Id, Pickle, Value};

/// Maximum nesting of wrappers, such as parameters and tensor subclasses.
const MAX_WRAPPED: usize = 8;
/// Maximum number of dimensions. No operation supports more.
const MAX_RANK: usize = 16;

/// Locations of the storages in the file: offset and size in bytes, by key.
pub(super) type Storages = HashMap<String, (u64, u64)>;

/// A tensor, as described by the pickle.
#[derive(Debug)]
pub(super) struct Described {
    /// Key of its storage.
    pub key: String,
    pub dtype: Result<DType, String>,
    /// Size of an element in bytes.
    pub size: u64,
    /// Number of elements of its storage, as claimed by the pickle.
    pub elements: u64,
    /// Index of the first element.
    pub offset: u64,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

/// Returns `true` if the value is a call that builds a tensor, including unsupported ones.
pub(super) fn is_tensor(pickle: &Pickle, id: Id) -> bool {
    let rebuilds = |name: &str| {
        name.starts_with("torch._utils._rebuild_")
            || name.starts_with("torch._tensor._rebuild_")
            || name == "torch.storage._load_from_bytes"
    };
    pickle.call(id).is_some_and(|(name, _)| rebuilds(name))
}

/// Returns `true` if a tensor has no dimensions. Unsupported tensors are assumed to have some.
pub(super) fn is_scalar(pickle: &Pickle, id: Id) -> bool {
    describe(pickle, id).is_ok_and(|tensor| tensor.shape.is_empty())
}

/// Interprets the call that builds a tensor.
///
/// # Errors
/// Describes the unsupported value, and how to avoid it.
pub(super) fn describe(pickle: &Pickle, id: Id) -> Result<Described, String> {
    let Some((name, arguments)) = pickle.call(id) else { return Err(format!("it is {}", pickle.describe(id))) };
    let (mut name, mut arguments) = (name, arguments);
    for _ in 0..MAX_WRAPPED {
        let items = pickle.items(arguments).unwrap_or_default();
        match (name, items) {
            ("torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state", [inner, ..]) => {
                (name, arguments) = pickle.call(*inner).ok_or("its parameter is not a tensor")?;
            }
            ("torch._tensor._rebuild_from_type_v2", [function, _, inner, ..]) => match pickle.get(*function) {
                Value::Global(function) => (name, arguments) = (function, *inner),
                _ => return Err("it is rebuilt by a function without a name".to_owned()),
            },
            (
                "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2",
                &[storage, offset, shape, strides, ..],
            ) => {
                return plain(pickle, storage, [offset, shape, strides], None);
            }
            ("torch._utils._rebuild_tensor_v3", &[storage, offset, shape, strides, _, _, dtype, ..]) => {
                return plain(pickle, storage, [offset, shape, strides], Some(dtype));
            }
            _ => return Err(unsupported(name)),
        }
    }
    Err("it is wrapped in too many others".to_owned())
}

/// Describes an unsupported tensor, and how to convert it.
fn unsupported(name: &str) -> String {
    let short = name.rsplit('.').next().unwrap_or(name);
    match short {
        "_rebuild_sparse_tensor" | "_rebuild_sparse_csr_tensor" => "it is sparse; save `tensor.to_dense()`".to_owned(),
        "_rebuild_qtensor" => "it is quantised; save `tensor.dequantize()`".to_owned(),
        "_rebuild_meta_tensor_no_storage" => "it is on PyTorch's device `meta`, and has no values".to_owned(),
        "_rebuild_nested_tensor" => "it is a nested tensor; save its parts".to_owned(),
        "_load_from_bytes" => {
            "`torch.storage._load_from_bytes` unpickles it a second time, which is not done here; save its `state_dict()`".to_owned()
        }
        _ => format!("it is made by `{name}`, which is not known; save `tensor.detach().clone().contiguous()`"),
    }
}

fn plain(
    pickle: &Pickle,
    storage: Id,
    [offset, shape, strides]: [Id; 3],
    dtype: Option<Id>,
) -> Result<Described, String> {
    let Value::Persistent(named) = pickle.get(storage) else {
        return Err(format!("its storage is {}", pickle.describe(storage)));
    };
    let (key, kind, elements) =
        storage_of(pickle, *named).ok_or("its storage is described in a way that is not known")?;
    let view = pickle.items(*named).and_then(|items| items.get(5)).and_then(|&view| pickle.items(view));
    // In old files a storage may be a view of another one: its key, its start and its size.
    let shift = match view {
        Some(&[_, start, _]) => pickle.number(start).ok_or("its storage starts nowhere")?,
        _ => 0,
    };
    let (dtype, size) = match dtype.map(|dtype| pickle.get(dtype)) {
        Some(Value::Global(name)) => element(name.strip_prefix("torch.").unwrap_or(name)),
        Some(_) => return Err("its element type has no name".to_owned()),
        None => element(kind),
    };
    // An untyped storage counts bytes.
    let elements = if kind == "Untyped" { elements / size.max(1) } else { elements };
    let numbers = |id: Id, what: &str| {
        // `torch.Size` wraps a tuple in a tuple.
        let inner = pickle.call(id).filter(|(name, _)| *name == "torch.Size").map(|(_, arguments)| arguments);
        let inner = inner.and_then(|arguments| pickle.items(arguments)?.first().copied());
        let items = pickle.items(inner.unwrap_or(id)).ok_or_else(|| format!("its {what} is not a tuple"))?;
        if items.len() > MAX_RANK {
            return Err(format!("it has {} dimensions, and {MAX_RANK} are the most", items.len()));
        }
        let number = |&id: &Id| pickle.number(id).and_then(|number| usize::try_from(number).ok());
        let numbers: Option<Vec<_>> = items.iter().map(number).collect();
        numbers.ok_or_else(|| format!("its {what} has something that is not a number"))
    };
    let (shape, strides) = (numbers(shape, "shape")?, numbers(strides, "stride")?);
    if shape.len() != strides.len() {
        return Err(format!("it has {} dimensions, and {} strides", shape.len(), strides.len()));
    }
    let offset = pickle.number(offset).and_then(|offset| offset.checked_add(shift)).ok_or("it starts nowhere")?;
    Ok(Described { key: key.to_owned(), dtype, size, elements, offset, shape, strides })
}

/// Parses the tuple that describes a storage: its key, its type and its number of elements.
pub(super) fn storage_of(pickle: &Pickle, named: Id) -> Option<(&str, &str, u64)> {
    let &[what, kind, key, _, elements, ..] = pickle.items(named)? else { return None };
    let (Some("storage"), Value::Global(kind)) = (pickle.text(what), pickle.get(kind)) else { return None };
    let kind = kind.rsplit('.').next()?.strip_suffix("Storage")?;
    Some((pickle.text(key)?, kind, pickle.number(elements)?))
}

/// Element type and size, by the name of a storage type or of a dtype. Returns PyTorch's name for a
/// type that burn does not have.
pub(super) fn element(name: &str) -> (Result<DType, String>, u64) {
    let dtype = match name {
        "Double" | "float64" | "double" => DType::F64,
        "Float" | "float32" | "float" => DType::F32,
        "Half" | "float16" | "half" => DType::F16,
        "BFloat16" | "bfloat16" => DType::BF16,
        "Long" | "int64" | "long" => DType::I64,
        "Int" | "int32" | "int" => DType::I32,
        "Short" | "int16" | "short" => DType::I16,
        "Char" | "int8" => DType::I8,
        "Byte" | "uint8" => DType::U8,
        "uint16" => DType::U16,
        "uint32" => DType::U32,
        "uint64" => DType::U64,
        "Bool" | "bool" => DType::Bool(BoolStore::Native),
        "ComplexFloat" | "complex64" => return (Err("complex64".to_owned()), 8),
        "ComplexDouble" | "complex128" => return (Err("complex128".to_owned()), 16),
        "complex32" => return (Err("complex32".to_owned()), 4),
        "QInt32" => return (Err("qint32".to_owned()), 4),
        // An untyped storage, and 8-bit types: `float8_e4m3fn`, `QUInt8`.
        other => return (Err(other.to_owned()), 1),
    };
    (Ok(dtype), dtype.size() as u64)
}
