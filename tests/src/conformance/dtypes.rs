//! Tensors of every element type. A type that the device supports is kept. Others are converted
//! without loss, or are an error that names the tensor.

use burn::module::{Module, Quantizer};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::quantization::{Calibration, QuantScheme, QuantStore, QuantValue};
use burn::tensor::{Bool, BoolStore, DType, Device, Distribution, Int, Tensor, TensorData};
use ray_zerocopy::error::LoadError;
use ray_zerocopy::{Pipeline, load, share};

use super::Spec;

/// Bare tensors of all kinds.
#[derive(Pipeline)]
#[pipeline(init = Bare::new)]
struct Bare {
    float: Tensor<1>,
    int: Tensor<2, Int>,
    bool: Tensor<1, Bool>,
    empty: Tensor<2>,
}

impl Bare {
    fn new(device: &Device) -> Self {
        Self {
            float: Tensor::zeros([3], device),
            int: Tensor::zeros([2, 2], device),
            bool: Tensor::empty([3], device),
            empty: Tensor::zeros([0, 4], device),
        }
    }
}

/// The values of a tensor, converted to `E`.
fn values<E: burn::tensor::Element>(data: &TensorData) -> Vec<E> {
    data.iter::<E>().collect()
}

/// Floating-point types that the device does not support are an error, since a conversion would
/// round.
pub fn floats(spec: &Spec, device: &Device) {
    for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16] {
        let data = TensorData::new(vec![0.5_f64, -2.0, 384.0], [3]).convert_dtype(dtype);
        let mut bare = Bare::new(&Device::flex());
        bare.float = Tensor::from_data(data.clone(), (&Device::flex(), dtype));
        let loaded = load::<Bare>(&share(&bare).unwrap(), device);
        if device.supports_dtype(dtype) {
            let loaded = loaded.unwrap();
            assert_eq!(loaded.float.dtype(), dtype);
            assert_eq!(loaded.float.to_data(), data);
            let doubled = (loaded.float.clone() * 2.0).into_data();
            assert_eq!(values::<f64>(&doubled), [1.0, -4.0, 768.0], "{dtype:?} on `{}`", spec.name);
            continue;
        }
        let Err(LoadError::Tensor { path, reason }) = loaded else { panic!("{dtype:?} on `{}`", spec.name) };
        assert_eq!(path, "float");
        assert!(reason.contains(&format!("does not compute with {dtype:?}, but with")), "{reason}");
        assert!(reason.contains("F32"), "{reason}");
    }
}

/// Integers of every width.
pub fn integers(spec: &Spec, device: &Device) {
    for dtype in [DType::I64, DType::I32, DType::I16, DType::I8, DType::U64, DType::U32, DType::U16, DType::U8] {
        let least = if dtype.is_int() { -7 } else { 7 };
        let data = TensorData::new(vec![least, 0, 1, 127_i64], [2, 2]).convert_dtype(dtype);
        let mut bare = Bare::new(&Device::flex());
        bare.int = Tensor::from_data(data.clone(), (&Device::flex(), dtype));
        let loaded = load::<Bare>(&share(&bare).unwrap(), device).unwrap();
        let expected = if device.supports_dtype(dtype) { dtype } else { device.settings().int_dtype.into() };
        assert_eq!(loaded.int.dtype(), expected, "{dtype:?} on `{}`", spec.name);
        assert_eq!(values::<i64>(&loaded.int.to_data()), values::<i64>(&data));
        let sum = (loaded.int.clone() + 1).into_data();
        assert_eq!(values::<i64>(&sum), [least + 1, 1, 2, 128].map(|value| wrapped(value, expected)));
    }
    // A value that does not fit the device's integers is an error. It is not truncated.
    let data = TensorData::new(vec![1_i64 << 40, 1, 2, 3], [2, 2]);
    let mut bare = Bare::new(&Device::flex());
    bare.int = Tensor::from_data(data.clone(), (&Device::flex(), DType::I64));
    match load::<Bare>(&share(&bare).unwrap(), device) {
        Ok(loaded) => assert_eq!(values::<i64>(&loaded.int.to_data()), values::<i64>(&data)),
        Err(LoadError::Tensor { path, reason }) => {
            assert!(!device.supports_dtype(DType::I64), "{reason}");
            assert_eq!(path, "int");
            assert!(reason.ends_with("and 1099511627776 does not fit"), "{reason}");
        }
        Err(error) => panic!("{error}"),
    }
}

/// The value as the type stores it: 128 wraps around in a signed byte.
fn wrapped(value: i64, dtype: DType) -> i64 {
    if dtype == DType::I8 { i64::from(value as i8) } else { value }
}

/// Booleans of every storage type.
pub fn booleans(spec: &Spec, device: &Device) {
    for store in [BoolStore::Native, BoolStore::U8] {
        let dtype = DType::Bool(store);
        let mut bare = Bare::new(&Device::flex());
        let data = TensorData::new(vec![true, false, true], [3]);
        bare.bool = Tensor::from_data(data.clone(), (&Device::flex(), dtype));
        let loaded = load::<Bare>(&share(&bare).unwrap(), device).unwrap();
        assert!(device.supports_dtype(loaded.bool.dtype()), "{:?} on `{}`", loaded.bool.dtype(), spec.name);
        assert_eq!(values::<bool>(&loaded.bool.to_data()), [true, false, true]);
        assert_eq!(values::<bool>(&loaded.bool.clone().bool_not().into_data()), [false, true, false]);
        // Shared from the device, they have the storage type of flex again.
        let back = load::<Bare>(&share(&*loaded).unwrap(), &Device::flex()).unwrap();
        assert_eq!(values::<bool>(&back.bool.to_data()), [true, false, true]);
        assert!(Device::flex().supports_dtype(back.bool.dtype()), "{:?}", back.bool.dtype());
    }
}

/// A tensor without elements is not listed as copied.
pub fn empty_tensors_are_not_copied(_: &Spec, device: &Device) {
    let loaded = load::<Bare>(&share(&Bare::new(&Device::flex())).unwrap(), device).unwrap();
    assert_eq!(loaded.empty.dims(), [0, 4]);
    assert!(loaded.copied().iter().all(|copied| copied.path != "empty" && copied.bytes > 0), "{:?}", loaded.copied());
}

#[derive(Pipeline)]
#[pipeline(init = Quantised::new)]
struct Quantised {
    layer: Linear,
}

impl Quantised {
    fn new(device: &Device) -> Self {
        Self { layer: LinearConfig::new(64, 32).init(device) }
    }
}

/// Quantised weights of 8 bits, stored as bytes and packed into 32-bit words: the output is that of
/// flex, or an error names the tensor.
pub fn quantised(spec: &Spec, device: &Device) {
    for store in [QuantStore::Native, QuantStore::PackedU32(0)] {
        let scheme = QuantScheme::default().with_value(QuantValue::Q8S).with_store(store);
        let mut pipeline = Quantised::new(&Device::flex());
        pipeline.layer = pipeline.layer.quantize_weights(&mut Quantizer::new(Calibration::MinMax, scheme));
        let arena = share(&pipeline).unwrap();
        let loaded = match load::<Quantised>(&arena, device) {
            Ok(loaded) => loaded,
            // LibTorch has no quantised tensors.
            Err(LoadError::Tensor { path, reason }) if spec.feature == Some("libtorch") => {
                assert_eq!(path, "layer.weight");
                assert!(reason.contains("the device does not compute with QFloat"), "{reason}");
                continue;
            }
            Err(error) => panic!("{store:?} on `{}`: {error}", spec.name),
        };
        let x = Tensor::<2>::random([3, 64], Distribution::Default, &Device::flex());
        let found = loaded.layer.forward(x.clone().to_device(device)).into_data();
        let expected = pipeline.layer.forward(x).into_data();
        // Both outputs have the same quantisation error.
        spec.same(found, expected);
    }
}
