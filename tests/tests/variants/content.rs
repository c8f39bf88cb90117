//! What is stored and what is borrowed.

use std::collections::BTreeMap;

use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use ray_zerocopy::arena::Location;
use ray_zerocopy::{Arena, Checkpoint, Pipeline, load, share, share_from};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::speech::{SpeechConfig, computed, expected, small};

#[test]
fn variant_stores_the_tensor_that_differs() {
    let mut pipeline = small();
    let base = share(&pipeline).unwrap();
    pipeline.body[2] = pipeline.config.layer();
    let tuned = base.variant(&pipeline).unwrap();
    tuned.verify().unwrap();
    assert_eq!(computed(&tuned), expected(&pipeline));
    let layer = pipeline.config.layer_bytes();
    let borrowed = tuned.bases().collect::<Vec<_>>();
    let [(id, bytes)] = borrowed[..] else { panic!("{borrowed:?}") };
    let (own, copies) = (tuned.own_bytes(), base.copied_fields().map(|(_, bytes)| bytes).sum::<u64>());
    assert_eq!((id, bytes), (base.id(), 3 * layer + 4 * 64 + copies), "three layers, the head, the copied fields");
    assert!((layer..layer + (8 << 10)).contains(&own), "{own}");
    assert_eq!(tuned.size_bytes(), own + bytes);
    assert_eq!((tuned.fingerprint(), tuned.weight_bytes()), (base.fingerprint(), base.weight_bytes()));
    let placed: Vec<_> = tuned.tensors().map(|tensor| tensor.placed).collect();
    assert_eq!(placed.iter().filter(|place| **place == Location::Base { id }).count(), 4);
    assert_eq!(placed[2], Location::Sealed { reason: None });
    // The base is as it was.
    assert_eq!((base.bases().count(), base.own_bytes()), (0, base.size_bytes()));
}

#[test]
fn equal_pipeline_stores_nothing() {
    let pipeline = small();
    let base = share(&pipeline).unwrap();
    let same = base.variant(&pipeline).unwrap();
    assert_eq!(computed(&same), expected(&pipeline));
    assert!(same.own_bytes() < 8 << 10, "{}", same.own_bytes());
    assert_eq!(same.stored_bytes(), base.stored_bytes());
    assert_eq!(same.bases().map(|(id, _)| id).collect::<Vec<_>>(), [base.id()]);
}

#[test]
fn other_pipeline_borrows_nothing() {
    let base = share(&small()).unwrap();
    let other = SpeechConfig { layers: 2, size: 32 }.init(&Device::flex());
    let tuned = base.variant(&other).unwrap();
    assert_eq!(computed(&tuned), expected(&other));
    // The labels are equal, and borrowed.
    assert_eq!(tuned.bases().map(|(_, bytes)| bytes).collect::<Vec<_>>(), [100_006]);

    let mut other = SpeechConfig { layers: 2, size: 32 }.init(&Device::flex());
    other.labels = vec!["y".repeat(10)];
    let tuned = base.variant(&other).unwrap();
    assert_eq!((tuned.bases().count(), tuned.own_bytes()), (0, tuned.size_bytes()));
    assert_eq!(computed(&tuned), expected(&other));
}

#[test]
fn copied_field_that_differs_is_stored() {
    let mut pipeline = small();
    let base = share(&pipeline).unwrap();
    pipeline.labels = vec!["y".repeat(50_000)];
    let tuned = base.variant(&pipeline).unwrap();
    let loaded = load::<crate::speech::Speech>(&tuned, &Device::flex()).unwrap();
    assert_eq!(loaded.labels, pipeline.labels);
    assert!((50_000..58_000).contains(&tuned.own_bytes()), "{}", tuned.own_bytes());
}

#[test]
fn variant_of_a_variant_borrows_from_where_the_bytes_are() {
    let mut pipeline = small();
    let base = share(&pipeline).unwrap();
    pipeline.body[0] = pipeline.config.layer();
    let first = base.variant(&pipeline).unwrap();
    pipeline.body[1] = pipeline.config.layer();
    let second = first.variant(&pipeline).unwrap();
    let layer = pipeline.config.layer_bytes();
    let mut bases: BTreeMap<_, _> = second.bases().map(|(id, bytes)| (id.to_hex(), bytes)).collect();
    assert_eq!(bases.remove(&first.id().to_hex()), Some(layer));
    assert!(bases.remove(&base.id().to_hex()).is_some_and(|bytes| bytes > 2 * layer));
    assert!((layer..layer + (8 << 10)).contains(&second.own_bytes()));
    // Of the first variant alone, nothing is left: it is no base any more.
    pipeline.body[0] = load::<crate::speech::Speech>(&base, &Device::flex()).unwrap().into_inner().body.swap_remove(0);
    let third = second.variant(&pipeline).unwrap();
    let bases: Vec<_> = third.bases().map(|(id, _)| id).collect();
    assert!(!bases.contains(&first.id()) && bases.contains(&second.id()) && bases.contains(&base.id()), "{bases:?}");
    // The memory of the bases exists as long as that of a variant.
    drop((base, first, second));
    third.verify().unwrap();
    assert_eq!(computed(&third), expected(&pipeline));
}

#[test]
fn tensors_are_found_under_other_names() {
    let mut pipeline = small();
    let base = share(&pipeline).unwrap();
    pipeline.body.reverse();
    // Tied tensors stay one.
    pipeline.body[0] = pipeline.body[1].clone();
    let tuned = base.variant(&pipeline).unwrap();
    assert!(tuned.own_bytes() < 8 << 10, "{}", tuned.own_bytes());
    assert_eq!(computed(&tuned), expected(&pipeline));
    assert_eq!(tuned.stored_bytes(), base.stored_bytes() - pipeline.config.layer_bytes());
}

#[derive(Pipeline)]
#[pipeline(init = Column::new)]
struct Column {
    first: Linear,
    second: Linear,
}

impl Column {
    fn new(device: &Device) -> Self {
        let layer = || LinearConfig::new(48, 32).with_bias(false).init(device);
        Self { first: layer(), second: layer() }
    }
}

#[test]
fn weights_of_a_checkpoint_are_compared_as_they_are_stored() {
    let folder = tempfile::tempdir().unwrap();
    let device = Device::flex();
    let random = || Tensor::<2>::random([32, 48], burn::tensor::Distribution::Default, &device).into_data();
    let (first, second, other) = (random(), random(), random());
    let file = |name: &str, tensors: [&burn::tensor::TensorData; 2]| {
        let path = folder.path().join(name);
        let view = |data: &burn::tensor::TensorData| {
            TensorView::new(Dtype::F32, vec![32, 48], data.as_bytes()).map(|view| view.data().to_vec()).unwrap()
        };
        let bytes = tensors.map(view);
        let views = ["first.weight", "second.weight"]
            .into_iter()
            .zip(&bytes)
            .map(|(name, bytes)| (name, TensorView::new(Dtype::F32, vec![32, 48], bytes).unwrap()));
        safetensors::serialize_to_file(views, None, &path).unwrap();
        Checkpoint::open(path).unwrap().from_pytorch()
    };
    let pipeline = Column::new(&device);
    let base = share_from(&pipeline, &file("base.safetensors", [&first, &second])).unwrap();
    let tuned = base.variant_from(&pipeline, &file("tuned.safetensors", [&first, &other])).unwrap();
    let layer = 4 * 32 * 48;
    assert_eq!(tuned.bases().collect::<Vec<_>>(), [(base.id(), layer)]);
    assert!((layer..layer + (8 << 10)).contains(&tuned.own_bytes()));
    let loaded = load::<Column>(&tuned, &device).unwrap();
    let transposed = |data| Tensor::<2>::from_data(data, &device).transpose().into_data();
    assert_eq!(loaded.first.weight.val().into_data(), transposed(first));
    assert_eq!(loaded.second.weight.val().into_data(), transposed(other));

    // Variants of an arena that is served from a file, and of weights that are.
    let saved = folder.path().join("base.bpk");
    base.save(&saved).unwrap();
    // SAFETY: the files are in a folder of this test, which does not change them.
    #[allow(unsafe_code, reason = "the promise is part of what is tested")]
    let placement = unsafe { ray_zerocopy::arena::Placement::in_file() };
    let placed = Arena::open_placed(&saved, placement).unwrap();
    let again = placed.variant(&*loaded).unwrap();
    assert_eq!(again.bases().collect::<Vec<_>>(), [(base.id(), layer)], "it is the same content");
    assert_eq!(again.borrowed_bytes(), layer);
    again.verify().unwrap();
}
