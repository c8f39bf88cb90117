//! A loaded pipeline equals the shared one.

use burn::tensor::{Bool, DType, Device, Tensor, TensorData};
use ray_zerocopy::arena::TensorKind;
use ray_zerocopy::error::LoadError;
use ray_zerocopy::{Loaded, load, share};

use super::Spec;
use super::model::Sample;
use crate::models::AllFields;

/// The forward pass gives the output of flex, for two input shapes and every kind of module and
/// tensor.
pub fn forward_matches_flex(spec: &Spec, device: &Device) {
    let sample = Sample::filled();
    let loaded = load::<Sample>(&share(&sample).unwrap(), device).unwrap();
    assert_eq!((loaded.calls, loaded.heads["fr"].note.as_str()), (0, "of fr"));
    for (batch, length) in [(3, 9), (1, 4)] {
        let (ids, ignored) = Sample::input(batch, length);
        let there = ids.clone().to_device(device);
        // burn's `to_device` does not convert between storage types of booleans.
        let not = Tensor::<2, Bool>::from_data(ignored.to_data(), device);
        for head in ["fr", "de"] {
            let expected = sample.scores(ids.clone(), ignored.clone(), head.to_owned()).unwrap().into_data();
            let found = loaded.scores(there.clone(), not.clone(), head.to_owned()).unwrap().into_data();
            assert!(expected.iter::<f32>().any(|score| score.abs() > 1e-3), "nothing to compare");
            spec.same(found, expected);
        }
        assert_eq!(integers(loaded.next(there).into_data()), integers(sample.next(ids).into_data()));
    }
}

fn integers(data: TensorData) -> Vec<i64> {
    data.iter().collect()
}

/// Every kind of field in every container is bit-identical after a load to the device and back.
pub fn every_field_comes_back(spec: &Spec, device: &Device) {
    let arena = share(&AllFields::filled(&Device::flex())).unwrap();
    let there = load::<AllFields>(&arena, device).unwrap();
    let back = load::<AllFields>(&share(&*there).unwrap(), &Device::flex()).unwrap();
    let mut back = back.into_inner();
    if !spec.integers {
        assert_eq!(there.ints.dtype(), DType::I64);
        back.ints = back.ints.cast(DType::I32);
    }
    assert_eq!(share(&back).unwrap().fingerprint(), arena.fingerprint());
    assert_eq!(there.skipped, 42, "a skipped field is as init left it");
}

/// Two tied fields are stored once in the arena and once on the device.
pub fn tied_weights_stay_tied(spec: &Spec, device: &Device) {
    let sample = Sample::filled();
    let arena = share(&sample).unwrap();
    let paths = ["words.weight", "out.weight"];
    assert!(
        paths.iter().all(|tied| arena.paths().any(|path| path == *tied)),
        "{:?}",
        arena.paths().collect::<Vec<_>>()
    );
    let loaded = load::<Sample>(&arena, device).unwrap();
    assert_eq!(loaded.words.weight.id, loaded.out.weight.id);
    let listed = loaded.copied().iter().filter(|copied| paths.contains(&copied.path.as_str())).count();
    assert_eq!(listed, if spec.borrows { 0 } else { 1 }, "a tied tensor is copied once: {:?}", loaded.copied());
}

/// `copied` lists all tensors or none, and `strict` agrees with it.
pub fn copied_lists_all_or_none(spec: &Spec, device: &Device) {
    let arena = share(&Sample::filled()).unwrap();
    let loaded = load::<Sample>(&arena, device).unwrap();
    let listed: Vec<_> = loaded.copied().iter().map(|copied| copied.path.clone()).collect();
    // All tensors differ except the tied ones. The tied matrix is listed under its first path.
    let borrowed = |kind| if kind == TensorKind::Int { spec.borrows_integers() } else { spec.borrows };
    let tensors = arena.tensors().filter(|tensor| tensor.path != "out.weight" && !borrowed(tensor.kind));
    let (mut expected, bytes) = tensors.fold((Vec::new(), 0), |(mut paths, bytes), tensor| {
        paths.push(tensor.path.to_owned());
        (paths, bytes + tensor.bytes)
    });
    let mut found = listed.clone();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    assert_eq!(loaded.copied().iter().map(|copied| copied.bytes).sum::<u64>(), bytes);
    let (count, first) = (listed.len(), listed.into_iter().next());
    match (loaded.strict(), first) {
        (Ok(_), None) => {}
        (Err(LoadError::Copied { count: found, bytes: size, path }), Some(first)) => {
            assert_eq!((found, size, path), (count, bytes, first));
        }
        (strict, first) => panic!("{:?} with {first:?} copied first", strict.err()),
    }
}

/// Running statistics of BatchNorm are loaded, although they are not parameters.
pub fn running_statistics_are_loaded(_: &Spec, device: &Device) {
    let sample = Sample::filled();
    let loaded = load::<Sample>(&share(&sample).unwrap(), device).unwrap();
    let (there, here) = (&loaded.layer.norm, &sample.layer.norm);
    assert_eq!(there.running_mean.value_sync().into_data(), here.running_mean.value_sync().into_data());
    assert_eq!(there.running_var.value_sync().into_data(), here.running_var.value_sync().into_data());
}

/// Changes of weights are private to the process, and do not reach the arena.
pub fn changes_are_private(spec: &Spec, device: &Device) {
    let arena = share(&Sample::filled()).unwrap();
    let mut changed: Loaded<Sample> = load(&arena, device).unwrap();
    assert_eq!(changed.zero_weights(), 0.0);
    arena.verify().unwrap();
    let fresh = load::<Sample>(&arena, device).unwrap();
    let left: f32 = fresh.attention[0].weight.val().abs().sum().into_scalar();
    assert!(left > 0.0, "a change on `{}` is in the arena", spec.name);
}
