//! Measures how soon latencies are normal again after a burst of calls.

use std::time::Duration;

use anyhow::Result;
use benches::random::Random;
use benches::{Progress, Samples, Table, time};
use serde::Serialize;

use crate::contestants::{Contestant, Workers, contestants};
use crate::open_loop::{arrivals, run};
use crate::{Args, load, throughput};

#[derive(Serialize)]
pub struct Row {
    workers: &'static str,
    calls: &'static str,
    arrivals_per_s: f64,
    arrivals_per_s_in_burst: f64,
    /// 99th percentile at the usual rate.
    usual_p99_us: f64,
    longest_us: f64,
    /// Time from the end of the burst. `None` if it is longer than calls arrived afterwards.
    back_after_s: Option<f64>,
    observed_s: f64,
}

/// Rate of arrivals in the burst, in units of the usual rate.
const TIMES: f64 = 8.0;
/// Length of the burst in seconds, and of the time before it.
const BURST: f64 = 1.0;
/// Time after the burst in which calls still arrive at the usual rate, in seconds.
const AFTER: f64 = 12.0;
/// Length of the windows whose percentiles are compared.
const WINDOW: Duration = Duration::from_millis(500);
/// Latencies are normal again when the 99th percentile of a window is at most this many times the
/// usual one. A window has too few calls for an exact comparison.
const NORMAL: f64 = 1.5;

pub fn steps(args: &Args) -> usize {
    if args.burst { 4 } else { 0 }
}

pub fn measure(
    workers: &[Workers],
    texts: &[String],
    throughput: &[throughput::Row],
    load: &[load::Row],
    args: &Args,
    progress: &Progress,
) -> Result<Vec<Row>> {
    let (burst, after) = if args.common.quick { (0.1, 0.6) } else { (BURST, AFTER) };
    let mut rows = Vec::new();
    for Contestant { workers, calls, tasks } in contestants(workers) {
        progress.step("burst");
        let rate = load::LOAD * throughput::capacity(throughput, workers);
        let usual_p99_us = load::p99_us(load, workers, calls);
        let mut random = Random::new(args.seed);
        let mut times = arrivals(rate, 2.0 * burst + after, &mut random);
        // Two Poisson processes at once are one with the sum of their rates.
        let more = arrivals(rate * (TIMES - 1.0), burst, &mut random);
        let begin = Duration::from_secs_f64(burst);
        times.extend(more.into_iter().map(|at| begin + at));
        times.sort_unstable();
        let latencies = run(&tasks, texts, &times)?;
        let back = back_after(&times, &latencies, 2 * begin, NORMAL * usual_p99_us);
        let longest = latencies.iter().max().copied().unwrap_or_default();
        rows.push(Row {
            workers,
            calls,
            arrivals_per_s: rate,
            arrivals_per_s_in_burst: TIMES * rate,
            usual_p99_us,
            longest_us: longest.as_secs_f64() * 1e6,
            back_after_s: back.map(|back| back.as_secs_f64()),
            observed_s: after,
        });
    }
    Ok(rows)
}

/// Returns the time from `end` to the end of the first window whose 99th percentile is at most
/// `limit_us`. Returns `None` if there is no such window while calls arrive.
fn back_after(times: &[Duration], latencies: &[Duration], end: Duration, limit_us: f64) -> Option<Duration> {
    let last = times.last()?;
    let mut begin = end;
    while begin + WINDOW <= *last {
        let window = begin..begin + WINDOW;
        let calls = times.iter().zip(latencies).filter(|(at, _)| window.contains(*at));
        let samples: Samples = calls.map(|(_, latency)| *latency).collect();
        if samples.quantile(0.99) <= limit_us {
            return Some(window.end - end);
        }
        begin = window.end;
    }
    None
}

pub fn table(rows: &[Row]) -> Table {
    let heading = ["burst of 1 s", "calls", "arrivals/s", "in the burst", "usual p99", "longest", "p99 is back after"];
    let mut table = Table::new(heading);
    for row in rows {
        let back = row.back_after_s.map_or_else(|| format!("> {:.0} s", row.observed_s), |back| format!("{back:.1} s"));
        table.row([
            row.workers.to_owned(),
            row.calls.to_owned(),
            format!("{:.0}", row.arrivals_per_s),
            format!("{:.0}", row.arrivals_per_s_in_burst),
            time(row.usual_p99_us),
            time(row.longest_us),
            back,
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::back_after;

    #[test]
    fn latencies_are_back_in_the_first_normal_window() {
        // A call every 100 ms. Those before 1.6 s take long.
        let times: Vec<_> = (0..40_u64).map(|call| Duration::from_millis(100 * call)).collect();
        let latency = |at: &Duration| Duration::from_micros(if *at < Duration::from_millis(1600) { 900 } else { 100 });
        let latencies: Vec<_> = times.iter().map(latency).collect();
        let back = |limit_us| back_after(&times, &latencies, Duration::from_secs(1), limit_us);
        assert_eq!(back(150.0), Some(Duration::from_millis(1500)));
        assert_eq!(back(1000.0), Some(Duration::from_millis(500)));
        assert_eq!(back(50.0), None);
    }
}
