//! The rows of `rzc top`: what has changed between two states of the same programs.

use std::time::Duration;

use ray_zerocopy::observe::{GenerationStatus, MethodStatus, ModelStatus, Service, Status, Times};

use crate::table::{count, mib, size};

/// Shown if no program publishes its status.
pub(super) const NOTHING: &str =
    "no program of this user publishes its status: `observe::publish(NAME)` does, and `rzc serve`";

/// Columns of the table of calls. `>` right-aligns one.
pub(super) const CALL_COLUMNS: [&str; 11] =
    ["service", "model", "weights", "method", ">calls/s", ">errors/s", ">wait", ">run", ">p50", ">p99", ">rows/batch"];

/// Columns of the table of processes.
pub(super) const MEMORY_COLUMNS: [&str; 8] =
    ["service", "model", "process", ">pid", ">shared", ">private", ">PSS", ">saved"];

/// The content of the screen.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct View {
    pub(super) calls: Vec<CallRow>,
    pub(super) memory: Vec<MemoryRow>,
    /// A line for each program.
    pub(super) services: Vec<String>,
    /// Programs that cannot be read.
    pub(super) problems: Vec<String>,
    saved: u64,
    private: u64,
}

/// Calls of one method on one generation of weights.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CallRow {
    pub(super) service: String,
    pub(super) model: String,
    pub(super) weights: String,
    pub(super) method: String,
    pub(super) calls_per_second: f64,
    pub(super) errors_per_second: f64,
    pub(super) waiting: usize,
    pub(super) running: usize,
    pub(super) p50: Option<Duration>,
    pub(super) p99: Option<Duration>,
    pub(super) rows_per_batch: Option<f64>,
}

/// Memory of one process in bytes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct MemoryRow {
    pub(super) service: String,
    pub(super) model: String,
    pub(super) process: String,
    pub(super) pid: u32,
    pub(super) shared: u64,
    pub(super) private: u64,
    pub(super) pss: u64,
    pub(super) saved: u64,
}

impl CallRow {
    pub(super) fn cells(&self) -> [String; CALL_COLUMNS.len()] {
        [
            self.service.clone(),
            self.model.clone(),
            self.weights.clone(),
            self.method.clone(),
            rate(self.calls_per_second),
            rate(self.errors_per_second),
            self.waiting.to_string(),
            self.running.to_string(),
            self.p50.map_or_else(String::new, time),
            self.p99.map_or_else(String::new, time),
            self.rows_per_batch.map_or_else(String::new, |rows| format!("{rows:.1}")),
        ]
    }
}

impl MemoryRow {
    pub(super) fn cells(&self) -> [String; MEMORY_COLUMNS.len()] {
        let [shared, private, pss, saved] = [self.shared, self.private, self.pss, self.saved].map(mib);
        let (service, model, process) = (self.service.clone(), self.model.clone(), self.process.clone());
        [service, model, process, self.pid.to_string(), shared, private, pss, saved]
    }
}

/// Programs at one time.
pub(super) struct Sample<'a> {
    pub(super) services: &'a [Service],
    /// Time from this sample to the one that it is compared with.
    pub(super) age: Duration,
}

impl View {
    /// The state of programs: what has happened since `before`, or since each of them began to count.
    pub(super) fn of(services: &[Service], before: Option<Sample<'_>>) -> Self {
        let mut view = Self::default();
        for service in services {
            match &service.status {
                Ok(status) => {
                    let earlier = before.as_ref().and_then(|sample| {
                        let same = sample.services.iter().find(|known| known.pid == service.pid)?;
                        Some((same.status.as_ref().ok()?, sample.age.as_secs_f64()))
                    });
                    view.add(status, earlier);
                }
                Err(reason) => view.problems.push(format!("process {}: {reason}", service.pid)),
            }
        }
        view
    }

    pub(super) fn is_empty(&self) -> bool {
        self.services.is_empty() && self.problems.is_empty()
    }

    /// The memory of all processes.
    pub(super) fn totals(&self) -> String {
        format!("all processes: {} private, {} saved by sharing", size(self.private), size(self.saved))
    }

    fn add(&mut self, status: &Status, before: Option<(&Status, f64)>) {
        let service = status.names.join(", ");
        let seconds = before.map_or(status.uptime_seconds, |(_, age)| age).max(f64::MIN_POSITIVE);
        let starts = status.workers.iter().map(|workers| (workers.restarted, workers.died));
        let (restarted, died) = starts.fold((0, 0), |sum, next| (sum.0 + next.0, sum.1 + next.1));
        let workers: usize = status.models.iter().map(|model| model.workers).sum();
        let mut line = format!(
            "{service}: {} (pid {}), up {}, {}",
            status.program,
            status.pid,
            uptime(status.uptime_seconds),
            count(workers, "worker")
        );
        if died + restarted > 0 {
            line += &format!(", {died} died, {restarted} restarted");
        }
        self.services.push(line);
        if status.left_out > 0 {
            self.problems.push(format!("{service}: {} are not shown", count(status.left_out, "further model")));
        }
        for model in &status.models {
            for generation in &model.generations {
                for method in &generation.methods {
                    let earlier = before.and_then(|(before, _)| find(before, model, generation, method));
                    self.calls.push(call_row(&service, model, generation, method, earlier, seconds));
                }
            }
            for process in &model.processes {
                self.memory.push(MemoryRow {
                    service: service.clone(),
                    model: short(&model.pipeline),
                    process: process.name.clone(),
                    pid: process.pid,
                    shared: process.shared,
                    private: process.private,
                    pss: process.pss,
                    saved: process.saved,
                });
                self.saved += process.saved;
                self.private += process.private;
            }
        }
    }
}

/// The same method on the same weights in an earlier state. What the weights are to the wrapper may have
/// changed.
fn find<'a>(
    before: &'a Status,
    model: &ModelStatus,
    generation: &GenerationStatus,
    method: &MethodStatus,
) -> Option<&'a MethodStatus> {
    let is_model = |old: &&ModelStatus| (&old.pipeline, &old.engine) == (&model.pipeline, &model.engine);
    let models = before.models.iter().filter(is_model);
    let generations = models.flat_map(|old| &old.generations).filter(|old| old.arena == generation.arena);
    generations.flat_map(|old| &old.methods).find(|old| old.method == method.method)
}

fn call_row(
    service: &str,
    model: &ModelStatus,
    generation: &GenerationStatus,
    method: &MethodStatus,
    before: Option<&MethodStatus>,
    seconds: f64,
) -> CallRow {
    let earlier = |count: fn(&MethodStatus) -> u64| before.map_or(0, count);
    let since = |count: fn(&MethodStatus) -> u64| count(method).saturating_sub(earlier(count));
    let took = method.took.since(before.map_or(&Times::default(), |before| &before.took));
    let batches = since(|method| method.batches);
    CallRow {
        service: service.to_owned(),
        model: short(&model.pipeline),
        weights: weights(generation),
        method: method.method.clone(),
        calls_per_second: since(MethodStatus::calls) as f64 / seconds,
        errors_per_second: since(MethodStatus::errors) as f64 / seconds,
        waiting: method.waiting,
        running: method.running,
        p50: took.quantile(0.5),
        p99: took.quantile(0.99),
        rows_per_batch: (batches > 0).then(|| since(|method| method.batched_rows) as f64 / batches as f64),
    }
}

/// `current #2 0b1c2d3e4f50`
fn weights(generation: &GenerationStatus) -> String {
    format!("{} #{} {}", generation.generation, generation.number, generation.arena)
}

/// The last part of a type's path.
fn short(pipeline: &str) -> String {
    let end = pipeline.find('<').unwrap_or(pipeline.len());
    let start = pipeline[..end].rfind("::").map_or(0, |at| at + 2);
    pipeline[start..].to_owned()
}

fn rate(per_second: f64) -> String {
    if per_second >= 10.0 || per_second == 0.0 { format!("{per_second:.0}") } else { format!("{per_second:.1}") }
}

fn time(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    match micros {
        0.0..100.0 => format!("{micros:.1} µs"),
        100.0..1000.0 => format!("{micros:.0} µs"),
        1000.0..100_000.0 => format!("{:.1} ms", micros / 1e3),
        100_000.0..1_000_000.0 => format!("{:.0} ms", micros / 1e3),
        _ => format!("{:.1} s", micros / 1e6),
    }
}

fn uptime(seconds: f64) -> String {
    let seconds = seconds as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use ray_zerocopy::observe::{Service, Status};
    use serde_json::{Value, json};

    use super::{Sample, View, short, time, uptime};

    /// A program with one model, whose method has had this many calls, one of 10 with an error.
    pub(in crate::commands::top) fn service(name: &str, calls: u64) -> Service {
        let buckets = |micros: u64| json!([{ "below_nanos": micros * 1000, "count": calls - calls / 50 }, { "below_nanos": 4_000_000, "count": calls / 50 }]);
        let times = |micros: u64| json!({ "buckets": buckets(micros), "sum_nanos": calls * micros * 900 });
        let process = |name: &str, pid: u32, shared: u64, saved: u64| json!({ "name": name, "pid": pid, "shared": shared << 20, "private": 20_u64 << 20, "pss": 50_u64 << 20, "saved": saved << 20 });
        let status: Value = json!({
            "version": 1, "names": [name], "pid": 4711, "program": "speech", "uptime_seconds": 100.0, "left_out": 0,
            "workers": [{ "engine": "local", "started": 3, "restarted": 1, "ended": 0, "died": 1 }],
            "models": [{
                "pipeline": "speech::MiniLm", "engine": "local", "workers": 2, "size": 2, "pool": null,
                "generations": [{
                    "generation": "current", "number": 2, "arena": "ab".repeat(32), "bytes": 86_u64 << 20,
                    "methods": [{
                        "method": "embed", "waiting": 3, "running": 2,
                        "outcomes": { "ok": calls - calls / 10, "deadline": calls / 10 },
                        "took": times(700), "waited": times(200), "ran": times(500),
                        "batches": calls / 8, "batched_calls": calls, "batched_rows": calls * 2,
                    }],
                }],
                "processes": [process("owner", 4711, 0, 0), process("worker 0", 4712, 86, 43), process("worker 1", 4713, 86, 43)],
            }],
        });
        let status: Status = serde_json::from_value(status).unwrap();
        Service::new(4711, Ok(status))
    }

    #[test]
    fn rates_are_those_between_two_states() {
        let (before, after) = ([service("speech", 1000)], [service("speech", 1400)]);
        let view = View::of(&after, Some(Sample { services: &before, age: Duration::from_secs(2) }));
        let [row] = &view.calls[..] else { panic!("{view:?}") };
        assert_eq!((row.calls_per_second, row.errors_per_second, row.rows_per_batch), (200.0, 20.0, Some(16.0)));
        assert_eq!((row.p50, row.p99), (Some(Duration::from_micros(700)), Some(Duration::from_millis(4))));
        assert_eq!((row.waiting, row.running, row.weights.as_str()), (3, 2, "current #2 abababababab"));
        // Since the program began to count.
        let view = View::of(&after, None);
        assert_eq!(view.calls[0].calls_per_second, 14.0);
        assert_eq!(view.services, ["speech: speech (pid 4711), up 1 min, 2 workers, 1 died, 1 restarted"]);
        assert_eq!(view.totals(), "all processes: 60.0 MiB private, 86.0 MiB saved by sharing");
        // A program that was started again under the same process id.
        let view = View::of(&before, Some(Sample { services: &after, age: Duration::from_secs(2) }));
        assert_eq!(view.calls[0].calls_per_second, 0.0);
    }

    #[test]
    fn figures_are_short() {
        let times = [0, 5300, 99_000, 730_000, 12_300_000, 450_000_000, 3_210_000_000].map(Duration::from_nanos);
        assert_eq!(times.map(time), ["0.0 µs", "5.3 µs", "99.0 µs", "730 µs", "12.3 ms", "450 ms", "3.2 s"]);
        assert_eq!([5.0, 61.0, 7300.0, 90_000.0].map(uptime), ["5 s", "1 min", "2 h 1 min", "1 d 1 h"]);
        assert_eq!(["a::b::C", "C", "a::C<b::D>"].map(short), ["C", "C", "C<b::D>"]);
    }
}
