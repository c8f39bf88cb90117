//! Actors of the local engine, with real worker processes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use burn::tensor::{Device, Distribution, Tensor};
use ray_zerocopy::error::{DeviceError, LoadError, TicketError};
use ray_zerocopy::{ActorWrapper, CallError, Error, Ticket, gather};
use ray_zerocopy_tests::memory::is_alive;
use ray_zerocopy_tests::models::{TestModel, TestModelConfig};

fn wrapper() -> ActorWrapper<TestModel> {
    ActorWrapper::new(&TestModelConfig::new(32).init(&Device::flex())).unwrap()
}

#[test]
fn actors_answer_as_the_original_does() {
    let device = Device::flex();
    let model = TestModelConfig::new(32).init(&device);
    let actors = ActorWrapper::new(&model).unwrap().device("cpu").unwrap().spawn(3).unwrap();
    assert_eq!(actors.actor_count(), 3);
    let input = Tensor::<2>::random([4, 32], Distribution::Default, &device);
    let here = model.forward(input.clone()).into_data();
    for there in gather((0..9).map(|_| actors.forward(input.clone()))).wait().unwrap() {
        assert_eq!(there.into_data(), here);
    }
}

#[test]
fn actors_keep_own_state_and_call_order() {
    let actors = wrapper().spawn(2).unwrap();
    let counts = gather((1..=50).map(|_| actors.actor(0).count(1))).wait().unwrap();
    assert_eq!(counts, (1..=50).collect::<Vec<_>>());
    assert_eq!(actors.actor(1).count(5).wait().unwrap(), 5);
    let pids: Vec<_> = actors.iter().map(|actor| actor.pid().wait().unwrap()).collect();
    assert_ne!(pids[0], pids[1]);
    assert_eq!(actors.actor(1).worker().map(|worker| worker.pid), Some(pids[1]));
}

#[test]
fn one_actor_cannot_corrupt_the_others() {
    let wrapper = wrapper();
    let before: f32 = wrapper.load().unwrap().total();
    let actors = wrapper.spawn(2).unwrap();
    assert_eq!(actors.actor(0).total().wait().unwrap(), before);
    assert_eq!(actors.actor(0).zero_weights().wait().unwrap(), 0.0);
    assert_eq!(actors.actor(0).total().wait().unwrap(), 0.0);
    assert_eq!(actors.actor(1).total().wait().unwrap(), before);
    assert_eq!(wrapper.load().unwrap().total(), before);
    wrapper.arena().verify().unwrap();
}

#[test]
fn panic_is_an_error_and_resets_the_actor() {
    let actors = wrapper().spawn(1).unwrap();
    let pid = actors.pid().wait().unwrap();
    assert_eq!(actors.count(3).wait().unwrap(), 3);
    let error = actors.count_and_panic().wait().unwrap_err();
    let Error::Call(CallError::Panicked { method, worker, message }) = &error else { panic!("{error}") };
    assert_eq!((method.as_str(), worker.pid), ("count_and_panic", pid));
    assert!(message.starts_with("panicked while counting (tests/src/models.rs:"), "{message}");
    // The process survives. Its pipeline is loaded again, because the panic may have left the old
    // one half-changed.
    assert_eq!(actors.pid().wait().unwrap(), pid);
    assert_eq!(actors.count(0).wait().unwrap(), 0);
}

#[test]
fn killed_actor_is_named_and_restarted() {
    let actors = wrapper().spawn(2).unwrap();
    let actor = actors.actor(1);
    let pid = actor.pid().wait().unwrap();
    actor.count(7).wait().unwrap();
    let error = actor.die_always().wait().unwrap_err();
    let text = error.to_string();
    let Error::Call(CallError::WorkerDied { method, worker, attempts: 1, allowed: 1, is_actor: true, .. }) = error
    else {
        panic!("{text}")
    };
    assert_eq!((method.as_str(), worker.index, worker.pid), ("die_always", 1, pid));
    assert!(
        text.contains(&format!("worker 1 (pid {pid}) died while it ran `die_always` (signal: 9 (SIGKILL)")),
        "{text}"
    );
    assert!(text.contains("is not retried"), "{text}");
    assert_ne!(actor.pid().wait().unwrap(), pid);
    assert_eq!(actor.count(0).wait().unwrap(), 0);
}

#[test]
fn actor_that_dies_while_loading_is_restarted() {
    let folder = tempfile::tempdir().unwrap();
    let deadly = folder.path().join("deadly");
    let config = TestModelConfig { size: 8, deadly: Some(deadly.to_string_lossy().into_owned()) };
    let wrapper = ActorWrapper::new(&config.init(&Device::flex())).unwrap();
    std::fs::write(&deadly, "").unwrap();
    let actors = wrapper.spawn(2).unwrap();
    assert!(!deadly.exists(), "no worker removed the file and died");
    assert_eq!(gather(actors.iter().map(|actor| actor.pid())).wait().unwrap().len(), 2);
}

#[test]
fn dropping_the_actors_ends_their_processes() {
    let actors = wrapper().spawn(2).unwrap();
    let pids: Vec<_> = actors.workers().iter().map(|worker| worker.pid).collect();
    assert!(pids.iter().all(|&pid| is_alive(pid)));
    let last = actors.sleep(50);
    drop(actors);
    assert!(pids.contains(&last.wait().unwrap()));
    assert!(pids.iter().all(|&pid| !is_alive(pid)));
}

#[test]
fn missing_device_error_names_the_feature() {
    let expected = DeviceError::NotCompiled { device: "cuda:1".to_owned(), feature: "cuda".to_owned() };
    let wrapper = wrapper().device("cuda:1").unwrap();
    assert_eq!(wrapper.load().unwrap_err(), Error::Device(expected.clone()));
    let error = wrapper.spawn(2).unwrap_err();
    let Error::Call(CallError::Load { error: LoadError::Device(found), .. }) = &error else { panic!("{error}") };
    assert_eq!(*found, expected);
    // `load_on` overrides the wrapper's device.
    assert!(wrapper.load_on("cpu").is_ok());
    assert!(wrapper.clone().device("gpu").is_err(), "an invalid device string fails in `device`");
    let error = wrapper.load_on("gpu").unwrap_err();
    assert!(error.to_string().starts_with("`gpu` is not a device; write `cpu`"), "{error}");
}

#[test]
fn wrappers_can_be_shared_between_threads() {
    fn check<T: Send + Sync>(_: &T) {}
    let wrapper = wrapper();
    check(&wrapper);
    let actors = wrapper.spawn(1).unwrap();
    check(&actors);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| actors.count(1).wait().unwrap())).collect();
        let mut counts: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        counts.sort_unstable();
        assert_eq!(counts, [1, 2, 3, 4]);
    });
}

#[test]
fn a_deadline_can_be_given_for_one_call() {
    use std::time::Duration;

    let actors = wrapper().spawn(2).unwrap();
    let error = actors.actor(1).deadline(Duration::from_millis(100)).sleep(60_000).wait().unwrap_err();
    assert!(matches!(&error, Error::Call(CallError::Deadline { .. })), "{error}");
    let error = actors.clone().deadline(Duration::from_millis(100)).sleep(60_000).wait().unwrap_err();
    assert!(matches!(&error, Error::Call(CallError::Deadline { .. })), "{error}");
    assert!(gather(actors.iter().map(|actor| actor.sleep(150))).wait().is_ok());
}

#[test]
fn report_finds_every_process_with_the_arena() {
    let wrapper = wrapper();
    let alone = wrapper.report().unwrap();
    assert_eq!(alone.processes.len(), 1);
    let one = wrapper.spawn(2).unwrap();
    let other = wrapper.spawn(1).unwrap();
    let report = wrapper.report().unwrap();
    let mut pids: Vec<_> = one.workers().iter().chain(&other.workers()).map(|worker| worker.pid).collect();
    pids.sort_unstable();
    assert_eq!(report.processes[1..].iter().map(|process| process.pid).collect::<Vec<_>>(), pids);
}

#[test]
fn a_handle_is_good_in_another_process() {
    let (one, other) = (wrapper(), wrapper());
    let total = one.load().unwrap().total();
    let actors = other.spawn(1).unwrap();
    let (pid, there, copied) = actors.load_handle(one).wait().unwrap().unwrap();
    assert_ne!(pid, std::process::id());
    assert_eq!((there, copied), (total, 0));
}

#[test]
fn handle_travels_as_text_unless_forged() {
    let wrapper = wrapper().device("cpu").unwrap();
    let arena = wrapper.arena().id();
    let text = serde_json::to_string(&wrapper).unwrap();
    let twin: ActorWrapper<TestModel> = serde_json::from_str(&text).unwrap();
    let again: ActorWrapper<TestModel> = serde_json::from_str(&text).unwrap();
    let address = |wrapper: &ActorWrapper<TestModel>| wrapper.load().unwrap().weight_address();
    assert_eq!(address(&twin), address(&again), "the same arena was mapped twice");
    assert_eq!(twin.arena().id(), arena);
    assert_eq!(twin.load().unwrap().total(), wrapper.load().unwrap().total());

    // A ticket gives the same arena. It does no I/O when it is serialised or deserialised.
    let ticket: Ticket<TestModel> =
        serde_json::from_str(&serde_json::to_string(&wrapper.export().unwrap()).unwrap()).unwrap();
    assert_eq!(ticket.arena_id(), arena);
    assert_eq!(address(&ticket.open().unwrap()), address(&twin));
    assert!(!format!("{ticket:?}").contains("secret"), "{ticket:?}");

    wrapper.withdraw();
    assert!(matches!(ticket.open().unwrap_err(), TicketError::Refused { .. }));
    let error = serde_json::from_str::<ActorWrapper<TestModel>>(&text).unwrap_err();
    assert!(error.to_string().contains("may have been withdrawn"), "{error}");
    let text = serde_json::to_string(&wrapper).unwrap();

    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    value["ticket"]["secret"] = serde_json::json!(vec![0_u8; 16]);
    let error = serde_json::from_value::<ActorWrapper<TestModel>>(value.clone()).unwrap_err();
    assert!(error.to_string().contains("does not know the secret"), "{error}");
    value["ticket"]["socket"] = serde_json::json!("/nowhere/arenas");
    let error = serde_json::from_value::<ActorWrapper<TestModel>>(value).unwrap_err();
    assert!(error.to_string().contains("is it still running, on this machine, as this user?"), "{error}");
}
