//! Tasks.

use std::time::Duration;

use burn::tensor::{Device, Tensor, TensorData};
use ray_zerocopy::gather;

use super::{EngineUnderTest, input, model, tasks};
use crate::models::TestModelError;

pub fn results_are_those_of_the_pipeline<E: EngineUnderTest>() {
    let model = model();
    let tasks = ray_zerocopy::TaskWrapper::on(&E::backend(2), &model).unwrap();
    let inputs: Vec<_> = (1..6).map(input).collect();
    let there = gather(inputs.iter().map(|input| tasks.forward(input.clone()))).wait().unwrap();
    for (input, there) in inputs.into_iter().zip(there) {
        assert_eq!(there.into_data(), model.forward(input).into_data());
    }
}

pub fn large_tensors_travel_both_ways<E: EngineUnderTest>() {
    let model = model();
    let tasks = ray_zerocopy::TaskWrapper::on(&E::backend(1), &model).unwrap();
    let input = input(20_000);
    let there = tasks.forward(input.clone()).wait().unwrap();
    assert_eq!(there.clone().into_data(), model.forward(input).into_data());
    // The result can be read and written like any other tensor.
    let doubled = there.clone() * 2.0;
    assert_eq!((doubled / 2.0).into_data(), there.into_data());
}

pub fn values_and_containers_travel<E: EngineUnderTest>() {
    let tasks = tasks::<E>(1);
    let value = serde_json::json!({"a": [1, 2.5, null, {"b": "c"}], "z": -1});
    let numbers = vec![0.1, f64::MIN_POSITIVE, -0.0, f64::INFINITY];
    let there = tasks.echo(value.clone(), "tête-à-tête".to_owned(), numbers.clone()).wait().unwrap();
    assert_eq!(there, (value, "tête-à-tête".to_owned(), numbers));

    let device = Device::flex();
    let tensors = vec![Tensor::<2>::ones([1, 2], &device), Tensor::<2>::zeros([0, 3], &device)];
    let named = tasks.sort(tensors, Some(Tensor::from_bool([true, false], &device))).wait().unwrap();
    assert_eq!(named["tensor 0"].to_data(), TensorData::from([[1.0_f32, 1.0]]));
    assert_eq!(named["tensor 1"].dims(), [0, 3]);
    assert_eq!(named["mask"].to_data(), TensorData::from([[1.0_f32, 0.0]]));
}

pub fn errors_of_a_method_are_values<E: EngineUnderTest>() {
    let tasks = tasks::<E>(1);
    assert_eq!(tasks.arange(0).wait().unwrap().unwrap_err(), TestModelError::Empty);
    assert_eq!(tasks.arange(10).wait().unwrap().unwrap_err(), TestModelError::Full { given: 10, room: 9 });
    assert_eq!(tasks.arange(3).wait().unwrap().unwrap().into_data().iter::<i64>().collect::<Vec<_>>(), [0, 1, 2]);
}

pub fn results_can_be_gathered_and_awaited<E: EngineUnderTest>() {
    let tasks = tasks::<E>(2);
    let calls = || (0..20).map(|number| tasks.maybe(Some(Some(number))));
    let expected: Vec<_> = (0..20).map(|number| Some(Some(number))).collect();
    assert_eq!(gather(calls()).wait().unwrap(), expected);
    assert_eq!(pollster::block_on(gather(calls())).unwrap(), expected);
    for (call, expected) in calls().zip(expected) {
        assert_eq!(pollster::block_on(call).unwrap(), expected);
    }
}

pub fn results_remain_after_a_timeout<E: EngineUnderTest>() {
    let tasks = tasks::<E>(1);
    let mut slow = tasks.sleep(300);
    assert!(slow.wait_timeout(Duration::ZERO).is_none());
    slow.wait().unwrap();
}
