//! Tensors in numpy's files.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::{DType, TensorData};
use npyz::{NpyFile, Order, TypeChar, WriterBuilder};

use crate::files;

/// Reads a file.
pub(crate) fn read(path: &Path) -> Result<TensorData> {
    let read = || -> Result<TensorData> {
        let file = NpyFile::new(BufReader::new(File::open(path)?))?;
        ensure!(
            file.order() == Order::C || file.shape().len() < 2,
            "it is in Fortran's order; save `np.ascontiguousarray(x)`"
        );
        let shape: Vec<usize> = file.shape().iter().map(|&extent| extent as usize).collect();
        let npyz::DType::Plain(plain) = file.dtype() else { bail!("it holds records, and a tensor is expected") };
        macro_rules! plain {
            ($($letter:ident $size:literal $type:ty),*) => {
                match (plain.type_char(), plain.size_field()) {
                    $((TypeChar::$letter, $size) => TensorData::new(file.into_vec::<$type>()?, shape),)*
                    _ => bail!("it holds {plain}, and booleans, integers and floats of 32 or 64 bits can be read"),
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

/// Writes a file, which appears when it is complete.
pub(crate) fn write(path: &Path, data: &TensorData, force: bool) -> Result<()> {
    let write = || -> Result<()> {
        ensure!(force || !path.exists(), "it is there already; --force replaces it");
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
                        other => bail!("numpy has no {other:?}"),
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
