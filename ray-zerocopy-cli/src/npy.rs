//! Reads and writes tensors as numpy files.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use burn::tensor::{DType, Element, TensorData, f16};
use npyz::{DTypeError, Deserialize, Endianness, NpyFile, Order, TypeChar, TypeRead, WriterBuilder};

use crate::files;

/// Reads a file, with either byte order and in C or Fortran order.
pub(crate) fn read(path: &Path) -> Result<TensorData> {
    let read = || -> Result<TensorData> {
        let file = File::open(path)?;
        // The length of a pipe is unknown.
        let len = Some(file.metadata()?).filter(std::fs::Metadata::is_file).map_or(u64::MAX, |metadata| metadata.len());
        let file = NpyFile::new(BufReader::new(file))?;
        let extents = file.shape().iter().map(|&extent| usize::try_from(extent));
        let shape = extents.collect::<Result<Vec<_>, _>>().context("its shape does not fit into the address space")?;
        let npyz::DType::Plain(plain) = file.dtype() else { bail!("it holds records, but a tensor is expected") };
        let bytes = shape.iter().try_fold(plain.size_field(), |bytes, &extent| bytes.checked_mul(extent as u64));
        let bytes = bytes.context("its size in bytes does not fit into 64 bits")?;
        let short = format!(
            "it is truncated: its header says {shape:?} of {plain}, which is {bytes} bytes, but the file has fewer"
        );
        // Checked before the size that the header claims is allocated.
        ensure!(bytes <= len, "{short}");
        let fortran = file.order() == Order::Fortran;
        macro_rules! plain {
            ($($letter:ident $size:literal $type:ty),*) => {
                match (plain.type_char(), plain.size_field()) {
                    $((TypeChar::$letter, $size) => tensor(elements::<$type>(file, &short)?, shape, fortran),)*
                    (TypeChar::Float, 2) => {
                        let halves = elements::<Half>(file, &short)?;
                        tensor(halves.into_iter().map(|Half(number)| number).collect(), shape, fortran)
                    }
                    (TypeChar::RawData, 2) => bail!(
                        "it holds {plain}, which is what numpy writes for bfloat16 and for bytes; save `x.astype('float32')`"
                    ),
                    _ => bail!("it holds {plain}, but only booleans, integers, and floats of 16, 32 or 64 bits can be read"),
                }
            };
        }
        Ok(plain!(
            Bool 1 bool, Int 1 i8, Int 2 i16, Int 4 i32, Int 8 i64, Uint 1 u8, Uint 2 u16, Uint 4 u32, Uint 8 u64,
            Float 4 f32, Float 8 f64
        ))
    };
    read().with_context(|| format!("{} cannot be read as a numpy file", path.display()))
}

/// Reads the elements of a file. `short` is the error if it has fewer than its header claims.
fn elements<T: Deserialize>(file: NpyFile<BufReader<File>>, short: &str) -> Result<Vec<T>> {
    file.into_vec::<T>().map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => anyhow!("{short}"),
        _ => error.into(),
    })
}

/// A 16-bit float. The feature of npyz for it would enable further features of `half`, which would
/// build burn again.
struct Half(f16);

/// Reads 16-bit floats in a byte order.
struct Halves(Endianness);

impl TypeRead for Halves {
    type Value = Half;

    fn read_one<R: Read>(&self, mut bytes: R) -> std::io::Result<Half> {
        let mut two = [0; 2];
        bytes.read_exact(&mut two)?;
        let bits = if self.0 == Endianness::Big { u16::from_be_bytes(two) } else { u16::from_le_bytes(two) };
        Ok(Half(f16::from_bits(bits)))
    }
}

impl Deserialize for Half {
    type TypeReader = Halves;

    fn reader(dtype: &npyz::DType) -> Result<Halves, DTypeError> {
        match dtype {
            npyz::DType::Plain(plain) => Ok(Halves(plain.endianness())),
            other => Err(DTypeError::custom(format!("{other:?} is not a number of 16 bits"))),
        }
    }
}

/// Creates a tensor from the elements of a file. A 0-dimensional array becomes a tensor of shape
/// `[1]`.
fn tensor<T: Element>(elements: Vec<T>, shape: Vec<usize>, fortran: bool) -> TensorData {
    match (shape.len(), fortran) {
        (0, _) => TensorData::new(elements, [1]),
        (1, _) | (_, false) => TensorData::new(elements, shape),
        (_, true) => TensorData::new(rows_first(&elements, &shape), shape),
    }
}

/// Reorders elements from Fortran order, in which the first index changes fastest, to C order.
fn rows_first<T: Copy>(elements: &[T], shape: &[usize]) -> Vec<T> {
    let strides: Vec<usize> = shape
        .iter()
        .scan(1, |stride, extent| {
            let own = *stride;
            *stride *= extent;
            Some(own)
        })
        .collect();
    let mut index = vec![0; shape.len()];
    let mut ordered = Vec::with_capacity(elements.len());
    let mut at = 0;
    while ordered.len() < elements.len() {
        ordered.push(elements[at]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            at -= strides[axis] * shape[axis];
            index[axis] = 0;
        }
    }
    ordered
}

/// Writes a file, which gets its name when it is complete.
pub(crate) fn write(path: &Path, data: &TensorData, force: bool) -> Result<()> {
    let write = || -> Result<()> {
        ensure!(force || !path.exists(), "it already exists; --force replaces it");
        files::write(path, |out| {
            let shape: Vec<u64> = data.shape().iter().map(|&extent| extent as u64).collect();
            macro_rules! elements {
                ($($pattern:pat => $type:ty),*) => {
                    match data.dtype() {
                        $($pattern => {
                            let options = npyz::WriteOptions::new().default_dtype().shape(&shape);
                            let mut writer = options.writer(out).begin_nd()?;
                            writer.extend(data.iter::<$type>())?;
                            writer.finish()?;
                        })*
                        other => bail!("numpy does not support {other:?}"),
                    }
                };
            }
            elements!(
                DType::F64 => f64, DType::F32 | DType::F16 | DType::BF16 | DType::Flex32 => f32,
                DType::I64 => i64, DType::I32 => i32, DType::I16 => i16, DType::I8 => i8,
                DType::U64 => u64, DType::U32 => u32, DType::U16 => u16, DType::U8 => u8, DType::Bool(_) => bool
            );
            Ok(())
        })
    };
    write().with_context(|| format!("{} cannot be written", path.display()))
}
