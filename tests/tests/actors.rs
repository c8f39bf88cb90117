//! Actors, on real processes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use burn::tensor::{Device, Distribution, Tensor};
use ray_zerocopy::error::{DeviceError, LoadError, TicketError};
use ray_zerocopy::{ActorWrapper, CallError, Error, Ticket, gather};
use ray_zerocopy_tests::memory::is_alive;
use ray_zerocopy_tests::models::{Mill, MillConfig};

fn wrapper() -> ActorWrapper<Mill> {
    ActorWrapper::new(&MillConfig::new(32).init(&Device::flex())).unwrap()
}

#[test]
fn actors_answer_as_the_original_does() {
    let device = Device::flex();
    let mill = MillConfig::new(32).init(&device);
    let actors = ActorWrapper::new(&mill).unwrap().device("cpu").unwrap().spawn(3).unwrap();
    assert_eq!(actors.actor_count(), 3);
    let corn = Tensor::<2>::random([4, 32], Distribution::Default, &device);
    let here = mill.grind(corn.clone()).into_data();
    for there in gather((0..9).map(|_| actors.grind(corn.clone()))).wait().unwrap() {
        assert_eq!(there.into_data(), here);
    }
}

#[test]
fn each_actor_has_its_own_state_and_keeps_the_order_of_calls() {
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
    assert_eq!(actors.actor(0).wear().wait().unwrap(), 0.0);
    assert_eq!(actors.actor(0).total().wait().unwrap(), 0.0);
    assert_eq!(actors.actor(1).total().wait().unwrap(), before);
    assert_eq!(wrapper.load().unwrap().total(), before);
    wrapper.arena().verify().unwrap();
}

#[test]
fn a_panic_is_an_error_and_the_actor_starts_anew() {
    let actors = wrapper().spawn(1).unwrap();
    let pid = actors.pid().wait().unwrap();
    assert_eq!(actors.count(3).wait().unwrap(), 3);
    let error = actors.count_and_jam().wait().unwrap_err();
    let Error::Call(CallError::Panicked { method, worker, message }) = &error else { panic!("{error}") };
    assert_eq!((method.as_str(), worker.pid), ("count_and_jam", pid));
    assert!(message.starts_with("jammed while counting (tests/src/models.rs:"), "{message}");
    // The process lives on, with a pipeline from the arena: a half-changed one is nobody's state.
    assert_eq!(actors.pid().wait().unwrap(), pid);
    assert_eq!(actors.count(0).wait().unwrap(), 0);
}

#[test]
fn a_killed_actor_is_an_error_that_names_it_and_comes_back() {
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
    assert!(text.contains("is not repeated"), "{text}");
    assert_ne!(actor.pid().wait().unwrap(), pid);
    assert_eq!(actor.count(0).wait().unwrap(), 0);
}

#[test]
fn an_actor_that_dies_while_it_loads_is_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let deadly = folder.path().join("deadly");
    let config = MillConfig { size: 8, deadly: Some(deadly.to_string_lossy().into_owned()) };
    let wrapper = ActorWrapper::new(&config.init(&Device::flex())).unwrap();
    std::fs::write(&deadly, "").unwrap();
    let actors = wrapper.spawn(2).unwrap();
    assert!(!deadly.exists(), "nobody died");
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
fn a_device_that_was_not_compiled_in_is_an_error_that_names_the_feature() {
    let expected = DeviceError::NotCompiled { device: "cuda:1".to_owned(), feature: "cuda".to_owned() };
    let wrapper = wrapper().device("cuda:1").unwrap();
    assert_eq!(wrapper.load().unwrap_err(), Error::Device(expected.clone()));
    let error = wrapper.spawn(2).unwrap_err();
    let Error::Call(CallError::Load { error: LoadError::Device(found), .. }) = &error else { panic!("{error}") };
    assert_eq!(*found, expected);
    // The wrapper's device is overridden at `load_on`.
    assert!(wrapper.load_on("cpu").is_ok());
    assert!(wrapper.clone().device("gpu").is_err(), "a typo fails where it is written");
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
fn a_report_finds_every_process_that_maps_the_weights() {
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
fn a_handle_travels_as_text_and_a_forged_one_does_not() {
    let wrapper = wrapper().device("cpu").unwrap();
    let arena = wrapper.arena().id();
    let text = serde_json::to_string(&wrapper).unwrap();
    let twin: ActorWrapper<Mill> = serde_json::from_str(&text).unwrap();
    let again: ActorWrapper<Mill> = serde_json::from_str(&text).unwrap();
    let address = |wrapper: &ActorWrapper<Mill>| wrapper.load().unwrap().weight_address();
    assert_eq!(address(&twin), address(&again), "the same arena was mapped twice");
    assert_eq!(twin.arena().id(), arena);
    assert_eq!(twin.load().unwrap().total(), wrapper.load().unwrap().total());

    // The same by a ticket, which does no I/O when it is written or read.
    let ticket: Ticket<Mill> =
        serde_json::from_str(&serde_json::to_string(&wrapper.export().unwrap()).unwrap()).unwrap();
    assert_eq!(ticket.arena_id(), arena);
    assert_eq!(address(&ticket.open().unwrap()), address(&twin));
    assert!(!format!("{ticket:?}").contains("secret"), "{ticket:?}");

    wrapper.withdraw();
    assert!(matches!(ticket.open().unwrap_err(), TicketError::Refused { .. }));
    let error = serde_json::from_str::<ActorWrapper<Mill>>(&text).unwrap_err();
    assert!(error.to_string().contains("may have been withdrawn"), "{error}");
    let text = serde_json::to_string(&wrapper).unwrap();

    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    value["ticket"]["secret"] = serde_json::json!(vec![0_u8; 16]);
    let error = serde_json::from_value::<ActorWrapper<Mill>>(value.clone()).unwrap_err();
    assert!(error.to_string().contains("does not know the secret"), "{error}");
    value["ticket"]["socket"] = serde_json::json!("/nowhere/arenas");
    let error = serde_json::from_value::<ActorWrapper<Mill>>(value).unwrap_err();
    assert!(error.to_string().contains("is it still running, on this machine, as this user?"), "{error}");
}
