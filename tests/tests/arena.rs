//! Arenas: format, seals, validation, and borrowed tensors.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::os::fd::OwnedFd;

use burn::module::{Param, Quantizer};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::quantization::{Calibration, QuantScheme, QuantStore, QuantValue};
use burn::tensor::{Bool, Bytes, DType, Device, Distribution, Int, Tensor, TensorData};
use burn_pack::Writer;
use ray_zerocopy::error::{ArenaError, LoadError};
use ray_zerocopy::{Arena, Pipeline, load, share};
use ray_zerocopy_tests::models::{AllFields, TestModel, TestModelConfig};
use rustix::fs::{MemfdFlags, OFlags, SealFlags, fcntl_add_seals, fcntl_getfl, memfd_create};

const ALL: SealFlags = SealFlags::WRITE.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::SEAL);

fn memfd(bytes: &[u8], seals: SealFlags) -> OwnedFd {
    let fd = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    assert_eq!(rustix::io::write(&fd, bytes).unwrap(), bytes.len());
    if !seals.is_empty() {
        fcntl_add_seals(&fd, seals).unwrap();
    }
    fd
}

fn bytes(arena: &Arena) -> Vec<u8> {
    let file = std::fs::File::from(arena.fd().unwrap().try_clone_to_owned().unwrap());
    let mut bytes = vec![0; arena.size_bytes() as usize];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 0).unwrap();
    bytes
}

fn model() -> TestModel {
    TestModelConfig::new(24).init(&Device::flex())
}

#[test]
fn arena_is_a_valid_burnpack_container() {
    let model = model();
    let arena = share(&model).unwrap();
    let reader = burn_pack::Reader::from_bytes(Bytes::from_bytes_vec(bytes(&arena))).unwrap();
    let names = reader.tensor_names();
    assert!(names.contains(&"layer.weight") && names.contains(&"layer.bias"), "{names:?}");
    assert_eq!(reader.tensor_data("layer.weight").unwrap(), model.layer.weight.val().into_data().as_bytes());
}

#[test]
fn the_kernel_refuses_every_write() {
    let arena = share(&model()).unwrap();
    let fd = arena.fd().unwrap();
    assert!(rustix::io::write(fd, b"x").is_err());
    assert!(rustix::fs::ftruncate(fd, 1).is_err());
    assert!(fcntl_add_seals(fd, SealFlags::FUTURE_WRITE).is_err());
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
    let mut again = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    assert!(std::io::Write::write(&mut again, b"x").is_err());
    arena.verify().unwrap();
}

/// Before Linux 6.7 sealed memory cannot be mapped through a descriptor that is open for writing.
#[test]
fn arena_descriptors_are_read_only() {
    let mode = |arena: &Arena| fcntl_getfl(arena.fd().unwrap()).unwrap().intersection(OFlags::RWMODE);
    let arena = share(&model()).unwrap();
    assert_eq!(mode(&arena), OFlags::RDONLY);
    // Also if the caller's descriptor is open for writing.
    let writable = memfd(&bytes(&arena), ALL);
    assert_eq!(fcntl_getfl(&writable).unwrap().intersection(OFlags::RWMODE), OFlags::RDWR);
    let opened = Arena::from_memfd(writable).unwrap();
    assert_eq!(mode(&opened), OFlags::RDONLY);
    opened.verify().unwrap();
    let folder = tempfile::tempdir().unwrap();
    arena.save(folder.path().join("model.bpk")).unwrap();
    assert_eq!(mode(&Arena::open(folder.path().join("model.bpk")).unwrap()), OFlags::RDONLY);
}

#[test]
fn unsealed_memfd_and_plain_file_are_refused() {
    let good = bytes(&share(&model()).unwrap());
    let error = Arena::from_memfd(memfd(&good, SealFlags::empty())).unwrap_err();
    assert_eq!(error, ArenaError::NotSealed { missing: "SEAL, SHRINK, GROW, WRITE".to_owned() });
    let error = Arena::from_memfd(memfd(&good, SealFlags::WRITE | SealFlags::GROW | SealFlags::SEAL)).unwrap_err();
    assert_eq!(error, ArenaError::NotSealed { missing: "SHRINK".to_owned() });
    let file = tempfile::tempfile().unwrap();
    assert!(matches!(Arena::from_memfd(file.into()), Err(ArenaError::NotSealed { .. })));
    Arena::from_memfd(memfd(&good, ALL)).unwrap().verify().unwrap();
}

#[test]
fn other_and_truncated_bytes_are_refused() {
    for junk in [vec![0], vec![7; 5000], b"BURN".to_vec()] {
        assert!(matches!(Arena::from_memfd(memfd(&junk, ALL)), Err(ArenaError::NotAnArena(_))));
    }
    assert!(matches!(Arena::from_memfd(memfd(&[], ALL)), Err(ArenaError::NotAnArena(_))));
    let plain = Writer::new(Vec::new()).into_bytes().unwrap();
    let error = Arena::from_memfd(memfd(&plain, ALL)).unwrap_err();
    assert_eq!(error.to_string(), "not an arena: it is a burnpack container without a manifest of ray-zerocopy");
    let good = bytes(&share(&model()).unwrap());
    for len in [1, 9, 10, 300, good.len() / 2, good.len() - 1] {
        assert!(Arena::from_memfd(memfd(&good[..len], ALL)).is_err(), "cut to {len} of {} bytes", good.len());
    }
}

/// Flips each byte of a small arena. Either the arena is refused, or `verify` finds the damage, or
/// the byte is padding or a field of the container that is not read.
#[test]
fn flipped_byte_is_refused_or_harmless() {
    let arena = share(&TestModelConfig::new(2).init(&Device::flex())).unwrap();
    let good = bytes(&arena);
    let first = load::<TestModel>(&arena, &Device::flex()).unwrap().layer.weight.val().into_data();
    let (mut refused, mut damaged) = (0, 0);
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x20;
        let Ok(arena) = Arena::from_memfd(memfd(&bad, ALL)) else {
            refused += 1;
            continue;
        };
        if let Err(error) = arena.verify() {
            assert!(matches!(error, ArenaError::BlobChecksum { .. }), "{error}");
            damaged += 1;
            continue;
        }
        if let Ok(loaded) = load::<TestModel>(&arena, &Device::flex()) {
            assert_eq!(loaded.layer.weight.val().into_data(), first, "byte {at} changed the weights unnoticed");
        }
    }
    assert!(refused > 100 && damaged >= (2 * 2 + 2) * 4, "{refused} refused, {damaged} damaged");
}

#[test]
fn a_damaged_weight_is_named() {
    let arena = share(&model()).unwrap();
    let mut bad = bytes(&arena);
    let last = bad.len() - 1;
    bad[last] ^= 1;
    let error = Arena::from_memfd(memfd(&bad, ALL)).unwrap().verify().unwrap_err();
    assert!(error.to_string().starts_with("entry `layer.bias` of the arena is corrupted: BLAKE3 is"), "{error}");
}

#[test]
fn another_pipelines_arena_is_refused() {
    let arena = share(&model()).unwrap();
    let error = load::<AllFields>(&arena, &Device::flex()).unwrap_err();
    assert!(matches!(error, LoadError::WrongPipeline { .. }), "{error}");
    assert!(error.to_string().contains("ray_zerocopy_tests::models::TestModel"), "{error}");
    assert!(error.to_string().contains("not `ray_zerocopy_tests::models::AllFields`"), "{error}");
}

#[derive(Pipeline)]
#[pipeline(init = Dtypes::new)]
struct Dtypes {
    floats: Vec<Tensor<2>>,
    ints: Vec<Tensor<1, Int>>,
    bools: Vec<Tensor<1, Bool>>,
}

const FLOATS: [DType; 4] = [DType::F64, DType::F32, DType::F16, DType::BF16];
const INTS: [DType; 8] = [DType::I64, DType::I32, DType::I16, DType::I8, DType::U64, DType::U32, DType::U16, DType::U8];

impl Dtypes {
    fn new(device: &Device) -> Self {
        let float = |dtype| {
            Tensor::from_data(TensorData::from([[1.5_f32, -2.0], [0.0, 3.25]]).convert_dtype(dtype), (device, dtype))
        };
        let int = |dtype| Tensor::from_data(TensorData::from([1_i32, 2, 100]).convert_dtype(dtype), (device, dtype));
        Self {
            floats: FLOATS.map(float).into(),
            ints: INTS.map(int).into(),
            bools: vec![Tensor::from_bool([true, false, true], device)],
        }
    }
}

#[test]
fn every_dtype_is_borrowed_in_place() {
    let pipeline = Dtypes::new(&Device::flex());
    let found: Vec<_> =
        pipeline.floats.iter().map(Tensor::dtype).chain(pipeline.ints.iter().map(Tensor::dtype)).collect();
    assert_eq!(found, [&FLOATS[..], &INTS[..]].concat());
    let arena = share(&pipeline).unwrap();
    let twin = load::<Dtypes>(&arena, &Device::flex()).unwrap().strict().unwrap();
    for (here, there) in pipeline.floats.iter().zip(&twin.floats) {
        assert_eq!(here.to_data(), there.to_data());
    }
    for (here, there) in pipeline.ints.iter().zip(&twin.ints) {
        assert_eq!(here.to_data(), there.to_data());
    }
    assert_eq!(pipeline.bools[0].to_data(), twin.bools[0].to_data());
}

#[derive(Pipeline)]
#[pipeline(init = Quantised::new)]
struct Quantised {
    layer: Linear,
}

impl Quantised {
    fn new(device: &Device) -> Self {
        Self { layer: LinearConfig::new(64, 32).with_bias(false).init(device) }
    }

    fn with(scheme: QuantScheme) -> Self {
        use burn::module::Module;

        let mut this = Self::new(&Device::flex());
        this.layer = this.layer.quantize_weights(&mut Quantizer::new(Calibration::MinMax, scheme));
        this
    }
}

#[test]
fn quantised_weights_are_borrowed_or_counted() {
    let scheme = QuantScheme::default().with_value(QuantValue::Q8S).with_store(QuantStore::Native);
    let pipeline = Quantised::with(scheme);
    assert!(matches!(pipeline.layer.weight.val().dtype(), DType::QFloat(_)));
    let arena = share(&pipeline).unwrap();
    assert!(arena.weight_bytes() < 64 * 32 * 2, "the values are bytes: {}", arena.weight_bytes());
    let twin = load::<Quantised>(&arena, &Device::flex()).unwrap();
    assert_eq!(twin.copied(), [], "flex computes with i8 in place");
    let x = Tensor::<2>::random([3, 64], Distribution::Default, &Device::flex());
    assert_eq!(pipeline.layer.forward(x.clone()).into_data(), twin.layer.forward(x).into_data());
}

#[test]
fn pipeline_without_tensors_can_be_shared() {
    #[derive(Pipeline)]
    #[pipeline(init = Empty::new)]
    struct Empty {
        nothing: Tensor<2>,
        text: String,
    }
    impl Empty {
        fn new(device: &Device) -> Self {
            Self { nothing: Tensor::zeros([0, 4], device), text: "x".to_owned() }
        }
    }
    let arena = share(&Empty::new(&Device::flex())).unwrap();
    let twin = load::<Empty>(&arena, &Device::flex()).unwrap().strict().unwrap();
    assert_eq!((twin.nothing.dims(), twin.text.as_str()), ([0, 4], "x"));
}

#[test]
fn borrowed_weights_outlive_the_arena() {
    let arena = share(&model()).unwrap();
    let twin = load::<TestModel>(&arena, &Device::flex()).unwrap();
    let total = twin.total();
    drop(arena);
    assert_eq!(twin.total(), total);
    // A tensor keeps the memory mapped.
    let weight = twin.into_inner().layer.weight.val();
    assert_eq!(weight.sum().into_scalar::<f32>(), total);
}

#[test]
fn write_to_borrowed_parameter_copies_it() {
    let arena = share(&model()).unwrap();
    let mut twin = load::<TestModel>(&arena, &Device::flex()).unwrap();
    let weight = twin.layer.weight.val().slice_fill([0..24, 0..24], 9.0);
    twin.layer.weight = Param::from_tensor(weight);
    assert_eq!(twin.total(), 9.0 * 24.0 * 24.0);
    arena.verify().unwrap();
}
