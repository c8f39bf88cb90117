//! Failures.

use std::time::Duration;

use ray_zerocopy::{CallError, Error};

use super::{EngineUnderTest, actors, input, tasks};

pub fn a_panic_is_an_error_of_the_call<E: EngineUnderTest>() {
    let tasks = tasks::<E>(1);
    let error = tasks.panic_with("no such word".to_owned()).wait().unwrap_err();
    let Error::Call(CallError::Panicked { method, message, .. }) = &error else { panic!("{error}") };
    assert_eq!(method, "panic_with");
    assert!(message.starts_with("asked to panic: no such word ("), "{message}");
    assert_eq!(tasks.forward(input(2)).wait().unwrap().dims()[0], 2);
}

pub fn a_panic_resets_an_actor<E: EngineUnderTest>() {
    let actors = actors::<E>(1);
    assert_eq!(actors.count(3).wait().unwrap(), 3);
    let error = actors.count_and_panic().wait().unwrap_err();
    assert!(matches!(&error, Error::Call(CallError::Panicked { .. })), "{error}");
    assert_eq!(actors.count(1).wait().unwrap(), 1);
}

pub fn unserialisable_result_is_an_error<E: EngineUnderTest>() {
    let error = tasks::<E>(1).secret().wait().unwrap_err();
    let text = "the result of `secret` could not be sent between processes: this type cannot be serialized";
    assert!(error.to_string().contains("this type cannot be serialized"), "{error}, not: {text}");
}

pub fn a_deadline_ends_the_wait<E: EngineUnderTest>() {
    let tasks = tasks::<E>(1);
    // The worker loads the pipeline first, which is not what the deadline is for.
    tasks.forward(input(1)).wait().unwrap();
    let hasty = tasks.clone().deadline(Duration::from_millis(300));
    let error = hasty.sleep(2000).wait().unwrap_err();
    let Error::Call(CallError::Deadline { method, after, .. }) = &error else { panic!("{error}") };
    assert_eq!((method.as_str(), *after), ("sleep", Duration::from_millis(300)));
    // The engine goes on.
    tasks.forward(input(1)).wait().unwrap();
}

pub fn closed_engine_refuses_calls<E: EngineUnderTest>() {
    let actors = actors::<E>(1);
    let queued = actors.sleep(50);
    actors.shut_down();
    queued.wait().unwrap();
    let error = actors.forward(input(1)).wait().unwrap_err();
    assert!(matches!(&error, Error::Call(CallError::ShutDown { .. })), "{error}");
    assert!(actors.workers().is_empty());
}
