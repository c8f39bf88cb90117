//! Ray without pipelines: functions as tasks and actors, on a cluster that this program starts.
//!
//! ```console
//! $ cargo xtask ray-env     # once: a Python environment with Ray
//! $ cargo run --release -p examples --features ray --example ray_bindings
//! ```

use ray_zerocopy::ray::{Cluster, Options, RayError};

/// A task: counts the occurrences of a word in a text.
fn count((text, word): (String, String)) -> usize {
    text.split_whitespace().filter(|found| found.eq_ignore_ascii_case(&word)).count()
}

/// A task that takes a list of results of the first.
fn sum(counts: Vec<usize>) -> usize {
    counts.into_iter().sum()
}

/// The state of an actor.
struct Log {
    lines: Vec<String>,
}

fn open(title: String) -> Log {
    Log { lines: vec![title] }
}

fn write(log: &mut Log, line: String) -> usize {
    log.lines.push(format!("{}: {line}", std::process::id()));
    log.lines.len()
}

fn read(log: &mut Log, (): ()) -> Vec<String> {
    log.lines.clone()
}

fn main() -> Result<(), RayError> {
    ray_zerocopy::init();
    let cluster = Cluster::local().cpus(2).start()?;
    println!("a cluster at {} with {:?}", cluster.address(), cluster.resources()?);

    let count = cluster.task(count as fn((String, String)) -> usize);
    let texts = ["the cat sat", "on the mat", "where the dog and the bird were"];
    let counts: Vec<_> =
        texts.iter().map(|text| count.remote(((*text).to_owned(), "the".to_owned()))).collect::<Result<_, _>>()?;
    let counts: Vec<_> = counts.iter().map(|count| count.get()).collect::<Result<_, _>>()?;
    println!("`the` occurs {counts:?} times");

    // Results are passed to the next task without being fetched.
    let stored = cluster.put(&counts)?;
    let total = cluster.task(sum as fn(Vec<usize>) -> usize).remote(&stored)?;
    println!("{} times in all", total.get()?);

    let log = cluster.actor(open as fn(String) -> Log).options(Options::default().cpus(0.1)).restarts(1);
    let log = log.start("a log".to_owned())?;
    for line in ["one", "two"] {
        log.call(write as fn(&mut Log, String) -> usize, line.to_owned())?.get()?;
    }
    println!("{:#?}", log.call(read as fn(&mut Log, ()) -> Vec<String>, ())?.get()?);
    cluster.shut_down()
}
