//! Many small calls at once, which an engine may send together: each is a call of its own.

use std::path::Path;
use std::time::{Duration, Instant};

use burn::nn::{Linear, LinearConfig};
use burn::tensor::Device;
use ray_zerocopy::{ActorWrapper, CallError, Error, Pending, Pipeline, TaskWrapper, gather};

use super::EngineUnderTest;
use crate::memory::eventually;
use crate::models::kill_myself;

/// Methods that take almost no time, unless they wait.
#[derive(Pipeline)]
#[pipeline(init = BulkModel::new)]
pub struct BulkModel {
    /// The weights.
    pub layer: Linear,
    /// Number of calls of `count`.
    #[pipeline(skip)]
    pub calls: usize,
}

#[ray_zerocopy::remote]
impl BulkModel {
    #[remote(skip)]
    pub fn new(device: &Device) -> Self {
        Self { layer: LinearConfig::new(4, 3).init(device), calls: 0 }
    }

    /// Adds 1. Panics for some numbers, and returns an error for others.
    pub fn next(&self, number: u64) -> Result<u64, String> {
        assert!(number % 97 != 13, "asked to panic by {number}");
        if number % 89 == 7 { Err(format!("{number} is odd in its own way")) } else { Ok(number + 1) }
    }

    /// Returns as many bytes.
    pub fn bytes(&self, count: usize) -> Vec<u8> {
        vec![count as u8; count]
    }

    /// Counts calls.
    pub fn count(&mut self) -> usize {
        self.calls += 1;
        self.calls
    }

    /// Appends a line to a file in the folder.
    pub fn note(&self, folder: String, name: String) {
        append(&folder, &name);
    }

    /// Waits until a file exists. Creates another one, whose name ends with `waits`, first.
    pub fn wait_for(&self, file: String) -> bool {
        std::fs::write(format!("{file} waits"), "").expect("the test's folder exists");
        let until = Instant::now() + Duration::from_secs(60);
        while !Path::new(&file).exists() {
            if until < Instant::now() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// Appends a line to a file, and kills this process if it is the first one.
    pub fn note_and_die_once(&self, folder: String, name: String) {
        if append(&folder, &name) == 1 {
            kill_myself();
        }
    }
}

/// Appends a line to a file. Returns its number of lines.
fn append(folder: &str, name: &str) -> u64 {
    use std::io::Write;
    let file = std::fs::File::options().append(true).create(true).open(Path::new(folder).join(name));
    let mut file = file.expect("the test's folder exists");
    file.write_all(b"\n").expect("the file can be written to");
    file.metadata().expect("the file exists").len()
}

/// Workers that have run some calls, so that they are known to be fast.
fn tasks<E: EngineUnderTest>(workers: usize) -> TaskWrapper<BulkModel> {
    let tasks = TaskWrapper::on(&E::backend(workers), &BulkModel::new(&Device::flex())).unwrap();
    warm_up::<E>(&tasks);
    tasks
}

fn warm_up<E: EngineUnderTest>(tasks: &TaskWrapper<BulkModel>) {
    let calls = if E::PASSES_CALLS_ON { 4 } else { 400 };
    gather((0..calls).map(|_| tasks.bytes(1))).wait().unwrap();
}

fn file(folder: &tempfile::TempDir, name: &str) -> String {
    folder.path().join(name).to_str().unwrap().to_owned()
}

/// Waits until a call of `wait_for` runs, on an engine where a later call may overtake it.
fn wait_until_it_runs<E: EngineUnderTest>(file: &str) {
    if E::PASSES_CALLS_ON {
        eventually("the slow call runs", || Path::new(&format!("{file} waits")).exists());
    }
}

pub fn each_of_many_calls_has_its_own_result<E: EngineUnderTest>() {
    let calls = if E::PASSES_CALLS_ON { 200 } else { 5000 };
    let tasks = tasks::<E>(2);
    let pending: Vec<_> = (0..calls).map(|number| tasks.next(number)).collect();
    for (number, pending) in (0..calls).zip(pending) {
        match pending.wait() {
            Err(Error::Call(CallError::Panicked { message, .. })) => {
                assert!(number % 97 == 13 && message.starts_with(&format!("asked to panic by {number}")), "{message}");
            }
            Ok(Err(error)) => assert!(number % 89 == 7 && error.starts_with(&format!("{number} is")), "{error}"),
            found => assert!(matches!(found, Ok(Ok(next)) if next == number + 1), "{number}: {found:?}"),
        }
    }
}

pub fn results_of_all_sizes_arrive<E: EngineUnderTest>() {
    let tasks = tasks::<E>(2);
    let sizes: Vec<_> = [0, 7, 1000, 70_000, 3, 20_000].into_iter().cycle().take(120).collect();
    let results = gather(sizes.iter().map(|&size| tasks.bytes(size))).wait().unwrap();
    for (size, bytes) in sizes.into_iter().zip(results) {
        assert!(bytes.len() == size && bytes.iter().all(|&byte| byte == size as u8), "{size}");
    }
}

pub fn many_calls_of_one_actor_keep_their_order<E: EngineUnderTest>() {
    let calls = if E::PASSES_CALLS_ON { 200 } else { 3000 };
    let wrapper = ActorWrapper::on(&E::backend(2), &BulkModel::new(&Device::flex())).unwrap();
    let actors = wrapper.threads_per_worker(1).spawn(2).unwrap();
    let counts = gather((0..calls).flat_map(|_| [actors.actor(0).count(), actors.actor(1).count()]));
    assert!(counts.wait().unwrap().into_iter().eq((1..=calls).flat_map(|count| [count, count])));
}

/// Calls of an actor are cancelled while it runs them. The others run in their order.
pub fn order_is_kept_while_calls_are_cancelled<E: EngineUnderTest>() {
    let calls = if E::PASSES_CALLS_ON { 60 } else { 2000 };
    let wrapper = ActorWrapper::on(&E::backend(1), &BulkModel::new(&Device::flex())).unwrap();
    let actors = wrapper.threads_per_worker(1).spawn(1).unwrap();
    gather((0..calls / 10).map(|_| actors.bytes(1))).wait().unwrap();
    let pending: Vec<_> = (0..calls).map(|_| actors.count()).collect();
    pending.iter().skip(3).step_by(7).for_each(Pending::cancel);
    let results: Vec<_> = pending.into_iter().map(Pending::wait).collect();
    let mut last = 0;
    for (index, result) in results.into_iter().enumerate() {
        match result {
            Ok(count) => {
                assert!(count > last, "call {index}: {count} after {last}");
                last = count;
            }
            Err(Error::Call(CallError::Cancelled { .. })) => assert_eq!(index % 7, 3, "call {index}"),
            Err(error) => panic!("call {index}: {error}"),
        }
    }
}

/// The call that ends the wait is made after the one that waits, and after calls that are fast.
pub fn slow_call_does_not_hold_the_others<E: EngineUnderTest>() {
    let tasks = tasks::<E>(2);
    // A bundle that has been passed on cannot be divided any more. A call with a deadline is sent alone.
    let far = Duration::from_secs(600);
    let apart = if E::PASSES_CALLS_ON { tasks.clone().deadline(far) } else { tasks.clone() };
    for round in 0..3 {
        let folder = tempfile::tempdir().unwrap();
        let end = file(&folder, "end");
        let small = |count: usize| (0..count).map(|_| tasks.bytes(2)).collect::<Vec<_>>();
        let (before, slow) = (small(10 * round), apart.wait_for(end.clone()));
        let after = (small(5), tasks.note(file(&folder, ""), "end".to_owned()), small(20));
        assert!(slow.wait().unwrap(), "the call that waits was not the only one");
        gather(before.into_iter().chain(after.0).chain(after.2)).wait().unwrap();
        after.1.wait().unwrap();
    }
}

pub fn cancelled_calls_behind_a_slow_one_never_run<E: EngineUnderTest>() {
    let folder = tempfile::tempdir().unwrap();
    let tasks = tasks::<E>(1);
    let end = file(&folder, "end");
    let slow = tasks.wait_for(end.clone());
    wait_until_it_runs::<E>(&end);
    let names: Vec<_> = (0..40).map(|number| number.to_string()).collect();
    let calls: Vec<_> = names.iter().map(|name| tasks.note(file(&folder, ""), name.clone())).collect();
    calls.iter().step_by(2).for_each(Pending::cancel);
    std::fs::write(end, "").unwrap();
    assert!(slow.wait().unwrap());
    for (index, call) in calls.into_iter().enumerate() {
        let result = call.wait();
        let has_run = Path::new(&file(&folder, &names[index])).exists();
        assert_eq!((result.is_ok(), has_run), (index % 2 == 1, index % 2 == 1), "{result:?}");
    }
}

pub fn deadlines_behind_a_slow_call_are_kept<E: EngineUnderTest>() {
    let folder = tempfile::tempdir().unwrap();
    let tasks = tasks::<E>(1);
    let end = file(&folder, "end");
    let hasty = tasks.clone().deadline(Duration::from_millis(300));
    let small: Vec<_> = (0..4).map(|_| tasks.bytes(2)).collect();
    let slow = tasks.wait_for(end.clone());
    wait_until_it_runs::<E>(&end);
    let late: Vec<_> = (0..9).map(|number| hasty.note(file(&folder, ""), number.to_string())).collect();
    for call in late {
        let error = call.wait().unwrap_err();
        assert!(matches!(&error, Error::Call(CallError::Deadline { .. })), "{error}");
    }
    std::fs::write(end, "").unwrap();
    assert!(slow.wait().unwrap(), "the call without a deadline goes on");
    gather(small).wait().unwrap();
    tasks.bytes(1).wait().unwrap();
    assert!((0..9).all(|number| !Path::new(&file(&folder, &number.to_string())).exists()));
}

/// Each call before and after the one that kills its worker runs once, and that one twice. On Ray, the calls that are
/// sent with it run twice as well.
pub fn death_costs_only_the_call_that_ran<E: EngineUnderTest>() {
    if !E::REPLACES_WORKERS {
        return;
    }
    let calls = if E::PASSES_CALLS_ON { 12 } else { 300 };
    let tasks = tasks::<E>(1).attempts(2);
    for deadly in [0, calls / 2, calls - 1] {
        let folder = tempfile::tempdir().unwrap();
        let place = file(&folder, "");
        let pending = (0..calls).map(|number| match number {
            number if number == deadly => tasks.note_and_die_once(place.clone(), number.to_string()),
            number => tasks.note(place.clone(), number.to_string()),
        });
        gather(pending.collect::<Vec<_>>()).wait().unwrap();
        for number in 0..calls {
            let lines = std::fs::read(file(&folder, &number.to_string())).unwrap().len();
            let is_repeated = number == deadly || (E::PASSES_CALLS_ON && lines == 2);
            assert_eq!(lines, if is_repeated { 2 } else { 1 }, "call {number}");
        }
        warm_up::<E>(&tasks);
    }
}

/// The calls of an actor that have not begun when it dies go to the next process.
pub fn death_of_an_actor_costs_only_the_call_that_ran<E: EngineUnderTest>() {
    if !E::REPLACES_WORKERS {
        return;
    }
    let wrapper = ActorWrapper::on(&E::backend(1), &BulkModel::new(&Device::flex())).unwrap();
    let actors = wrapper.threads_per_worker(1).spawn(1).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let place = file(&folder, "");
    gather((0..if E::PASSES_CALLS_ON { 4 } else { 100 }).map(|_| actors.bytes(1))).wait().unwrap();
    let gate = file(&folder, "gate");
    let waits = actors.wait_for(gate.clone());
    let mut before: Vec<_> = (0..10).map(|number| actors.note(place.clone(), number.to_string())).collect();
    if E::PASSES_CALLS_ON {
        // Ray may lose the answer of a call that has ended just before the process.
        std::fs::write(&gate, "").unwrap();
        gather(std::mem::take(&mut before)).wait().unwrap();
    }
    let deadly = actors.note_and_die_once(place.clone(), "deadly".to_owned());
    let after: Vec<_> = (10..20).map(|number| actors.note(place.clone(), number.to_string())).collect();
    std::fs::write(gate, "").unwrap();
    assert!(waits.wait().unwrap());
    gather(before).wait().unwrap();
    let error = deadly.wait().unwrap_err();
    assert!(matches!(&error, Error::Call(CallError::WorkerDied { .. })), "{error}");
    if !E::PASSES_CALLS_ON {
        gather(after).wait().unwrap();
        eventually("all have run", || (0..20).all(|number| Path::new(&file(&folder, &number.to_string())).exists()));
    }
}
