//! Calls that are put together.

use std::time::Duration;

use burn::tensor::{Device, Distribution, Tensor};
use ray_zerocopy::error::CallPhase;
use ray_zerocopy::{ActorWrapper, Batching, CallError, Error, Pending, TaskWrapper, gather};

use super::EngineUnderTest;
use super::models::{BatchModel, Busy, occupy};

fn model() -> BatchModel {
    BatchModel::new(&Device::flex())
}

/// One worker, which has loaded the pipeline.
fn tasks<E: EngineUnderTest>(batching: Batching) -> TaskWrapper<BatchModel> {
    let tasks = TaskWrapper::on(&E::backend(1), &model()).unwrap().batch(batching);
    tasks.sleep(0).wait().unwrap();
    tasks
}

/// Makes calls of `shout` while the worker is busy. Returns the number of rows of each call's batch.
fn batches(tasks: &TaskWrapper<BatchModel>, texts: &[&str]) -> Vec<usize> {
    let busy = tasks.shout(vec!["first".to_owned()]);
    let calls: Vec<_> = while_busy(tasks, || texts.iter().map(|text| tasks.shout_one((*text).to_owned())).collect());
    busy.wait().unwrap();
    calls.into_iter().map(|call| call.wait().unwrap().unwrap().1).collect()
}

/// Makes calls while the worker is busy.
fn while_busy<T>(tasks: &TaskWrapper<BatchModel>, calls: impl FnOnce() -> Vec<Pending<T>>) -> Vec<Pending<T>> {
    let busy = occupy(tasks);
    let calls = calls();
    busy.release();
    calls
}

fn own(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

pub fn waiting_calls_run_as_one<E: EngineUnderTest>() {
    let tasks = tasks::<E>(Batching::default());
    let rows = batches(&tasks, &["a"; 20]);
    assert!(rows.iter().filter(|&&rows| rows >= 10).count() >= 10, "{rows:?}");
    let report = tasks.report().unwrap();
    let batches = report.batches.iter().find(|batches| batches.method == "shout").unwrap();
    assert_eq!((batches.calls, batches.rows), (21, 21), "{batches}");
    assert!(batches.batches < 10 && batches.largest >= 10, "{batches}");
    assert!(report.to_string().contains("batches of `shout`: "), "{report}");
}

pub fn lone_call_runs_alone<E: EngineUnderTest>() {
    let tasks = tasks::<E>(Batching::default());
    for _ in 0..10 {
        assert_eq!(tasks.shout_one("a".to_owned()).wait().unwrap(), Ok(("A".to_owned(), 1)));
        let both = tasks.shout(own(&["a", "b"])).wait().unwrap();
        assert_eq!(both, [Ok(("A".to_owned(), 2)), Ok(("B".to_owned(), 2))]);
    }
    assert_eq!(tasks.shout(Vec::new()).wait().unwrap(), []);
}

pub fn limits_are_kept<E: EngineUnderTest>() {
    let rows = batches(&tasks::<E>(Batching::default().max_rows(4)), &["a"; 20]);
    assert!(rows.iter().all(|&rows| rows <= 4) && rows.contains(&4), "{rows:?}");
    // Three rows of 10 letters cost 30.
    let texts = ["aaaaaaaaaa", "b", "bbbbbbbbbb", "c", "cccccccccc", "d", "dddddddddd"];
    let rows = batches(&tasks::<E>(Batching::default().max_cost(30)), &texts);
    let long: Vec<_> = rows.iter().step_by(2).collect();
    assert!(long.iter().all(|&&rows| rows <= 3), "{rows:?}");
}

pub fn rows_of_tensors_are_divided<E: EngineUnderTest>() {
    let model = model();
    let tasks = TaskWrapper::on(&E::backend(1), &model).unwrap().batch(Batching::default());
    let input = |rows| Tensor::<2>::random([rows, 4], Distribution::Default, &Device::flex());
    let inputs: Vec<_> = (1..8).map(input).collect();
    let there = gather(inputs.iter().map(|input| tasks.forward(input.clone()))).wait().unwrap();
    for (input, there) in inputs.into_iter().zip(there) {
        let here = model.forward(input);
        assert_eq!(there.dims(), here.dims());
        let difference: f32 = (there - here).abs().max().into_scalar();
        assert!(difference < 1e-5, "{difference}");
    }
    let row = input(1);
    let there = tasks.forward_one(row.clone().squeeze_dim::<1>(0)).wait().unwrap();
    assert_eq!(there.into_data(), model.forward(row).squeeze_dim::<1>(0).into_data());
}

pub fn calls_with_other_arguments_run_apart<E: EngineUnderTest>() {
    let tasks = tasks::<E>(Batching::default());
    let calls = while_busy(&tasks, || (0..12).map(|index| tasks.repeat_one("ab".to_owned(), index % 3)).collect());
    for (index, call) in calls.into_iter().enumerate() {
        let (text, rows) = call.wait().unwrap().unwrap();
        assert_eq!(text, "ab".repeat(index % 3));
        assert!(rows <= 4, "{rows}");
    }
}

pub fn one_bad_row_is_its_own_error<E: EngineUnderTest>() {
    let tasks = tasks::<E>(Batching::default());
    let texts = ["a", "bad", "b", "c", "bad"];
    let calls = while_busy(&tasks, || texts.iter().map(|text| tasks.shout_one((*text).to_owned())).collect());
    for (text, call) in texts.iter().zip(calls) {
        let result = call.wait().unwrap().map(|(text, _)| text);
        let expected = if *text == "bad" { Err("`bad` is not a word".to_owned()) } else { Ok(text.to_uppercase()) };
        assert_eq!(result, expected);
    }
}

pub fn failed_batch_is_repeated_row_by_row<E: EngineUnderTest>() {
    let tasks = tasks::<E>(Batching::default());
    for bad in ["bad", "panic"] {
        let texts = ["a", "b", bad, "c", "d"];
        let calls = while_busy(&tasks, || texts.iter().map(|text| tasks.repeat_one((*text).to_owned(), 2)).collect());
        for (text, call) in texts.iter().zip(calls) {
            match (*text, call.wait()) {
                ("bad", result) => assert_eq!(result.unwrap().unwrap_err(), "1 rows have a bad one"),
                ("panic", result) => {
                    let error = result.unwrap_err();
                    assert!(matches!(&error, Error::Call(CallError::Panicked { .. })), "{error}");
                }
                (text, result) => assert_eq!(result.unwrap().unwrap().0, text.repeat(2)),
            }
        }
    }
}

pub fn wrong_number_of_rows_is_an_error<E: EngineUnderTest>() {
    let tasks = tasks::<E>(Batching::default());
    let error = tasks.repeat(own(&["short", "a"]), 1).wait().unwrap_err();
    let text = "`repeat` returned 0 rows for 2 rows; it has to return one for each";
    assert!(error.to_string().contains(text), "{error}");
    let calls = while_busy(&tasks, || {
        let texts = ["a", "short", "b"];
        texts.iter().map(|text| tasks.repeat_one((*text).to_owned(), 1)).collect()
    });
    let errors: Vec<_> = calls.into_iter().filter_map(|call| call.wait().err()).collect();
    assert!(!errors.is_empty());
    for error in errors {
        assert!(error.to_string().contains("`repeat` returned 0 rows for "), "{error}");
    }
}

pub fn batch_of_an_actor_changes_its_state_once<E: EngineUnderTest>() {
    let wrapper = ActorWrapper::on(&E::backend(1), &model()).unwrap();
    let actors = wrapper.threads_per_worker(1).spawn(1).unwrap().batch(Batching::default());
    let busy = Busy::with(|begun, gate| actors.hold(begun, gate));
    let first = actors.learn_one("a".to_owned());
    let calls: Vec<_> = (0..10).map(|_| actors.learn_one("a".to_owned())).collect();
    busy.release();
    first.wait().unwrap().unwrap();
    let counts: Vec<_> = calls.into_iter().map(|call| call.wait().unwrap().unwrap()).collect();
    assert!(counts.iter().all(|&count| count <= 2), "{counts:?}");
    // A batch of a method that changes the state is not repeated.
    let busy = Busy::with(|begun, gate| actors.hold(begun, gate));
    let calls: Vec<_> = ["a", "bad", "a"].into_iter().map(|text| actors.learn_one(text.to_owned())).collect();
    busy.release();
    let results: Vec<_> = calls.into_iter().map(|call| call.wait().unwrap()).collect();
    assert!(results[1].as_ref().is_err_and(|error| error.ends_with("has a bad row")), "{results:?}");
    let after = actors.learn_one("a".to_owned()).wait().unwrap().unwrap();
    assert!(after <= 5, "a batch was repeated: {after}, {results:?}");
}

pub fn panicking_cost_is_an_error<E: EngineUnderTest>() {
    let tasks = tasks::<E>(Batching::default());
    let error = tasks.shout_one("costly".to_owned()).wait().unwrap_err().to_string();
    let text = "the arguments of `shout` could not be sent between processes: the function that computes the cost \
                panicked: ";
    assert!(error.starts_with(text) && error.contains("asked to panic"), "{error}");
    assert!(tasks.shout_one("cheap".to_owned()).wait().unwrap().is_ok());
}

pub fn deadline_leaves_the_batch<E: EngineUnderTest>() {
    let tasks = tasks::<E>(Batching::default());
    let hasty = tasks.clone().deadline(Duration::from_millis(50));
    let busy = occupy(&tasks);
    let late = hasty.shout_one("late".to_owned());
    let error = late.wait().unwrap_err();
    let Error::Call(CallError::Deadline { after, phase, .. }) = &error else { panic!("{error}") };
    assert_eq!(*after, Duration::from_millis(50));
    assert!(matches!(phase, CallPhase::Queued | CallPhase::RayTask), "{error}");
    busy.release();
    assert!(tasks.shout_one("a".to_owned()).wait().unwrap().is_ok());
}

pub fn call_waits_for_others_if_asked<E: EngineUnderTest>() {
    let patient = Batching::default().max_rows(3).max_wait(Duration::from_secs(30));
    let tasks = tasks::<E>(patient);
    // Full at once, so that it does not wait.
    let calls: Vec<_> = (0..3).map(|_| tasks.shout_one("a".to_owned())).collect();
    for call in calls {
        assert_eq!(call.wait().unwrap().unwrap().1, 3);
    }
    let tasks = tasks.batch(Batching::default().max_wait(Duration::from_millis(20)));
    assert_eq!(tasks.shout_one("a".to_owned()).wait().unwrap().unwrap().1, 1);
}

pub fn empty_calls_are_answered<E: EngineUnderTest>() {
    let tasks = tasks::<E>(Batching::default());
    let empty = || Tensor::<2>::zeros([0, 4], &Device::flex());
    let rows = Tensor::<2>::ones([2, 4], &Device::flex());
    assert_eq!(tasks.forward(empty()).wait().unwrap().dims()[0], 0);
    let calls = while_busy(&tasks, || vec![tasks.forward(rows), tasks.forward(empty()), tasks.forward(empty())]);
    let dims: Vec<_> = calls.into_iter().map(|call| call.wait().unwrap().dims()[0]).collect();
    assert_eq!(dims, [2, 0, 0]);
}

/// The wrapper is dropped while its call waits for others.
pub fn call_outlives_its_wrapper<E: EngineUnderTest>() {
    let tasks = tasks::<E>(Batching::default().max_wait(Duration::from_millis(200)));
    let other = tasks.clone().deadline(Duration::from_secs(60));
    let calls = [tasks.shout_one("a".to_owned()), other.shout_one("b".to_owned())];
    drop((tasks, other));
    for call in calls {
        call.wait().unwrap().unwrap();
    }
}

/// More calls wait than one batch takes. On Ray, calls that wait here are not in Ray's hands.
pub fn shut_down_runs_calls_that_wait<E: EngineUnderTest>() {
    if E::PASSES_CALLS_ON {
        return;
    }
    let wrapper = ActorWrapper::on(&E::backend(1), &model()).unwrap();
    let actors = wrapper.threads_per_worker(1).spawn(1).unwrap().batch(Batching::default().max_rows(3));
    let busy = actors.sleep(300);
    let calls: Vec<_> = (0..10).map(|_| actors.shout_one("a".to_owned())).collect();
    actors.shut_down();
    busy.wait().unwrap();
    for call in calls {
        assert!(call.wait().unwrap().unwrap().1 <= 3);
    }
    let error = actors.shout_one("a".to_owned()).wait().unwrap_err();
    assert!(matches!(&error, Error::Call(CallError::ShutDown { .. })), "{error}");
}
