//! Open loop: calls arrive at random times, whether or not earlier calls have been answered.
//!
//! One thread makes the calls, and polls each once. The waker records when the result arrives, so
//! that no thread has to wait for each call. Latency counts from the time at which a call was due:
//! if the calling thread is late, that is part of the latency.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use anyhow::{Error, Result};
use benches::random::Random;
use ray_zerocopy::TaskWrapper;

use crate::service::Service;

/// Smallest number of calls, so that there are percentiles on a machine of any speed.
const MIN_CALLS: usize = 10;

/// Creates the arrival times of a Poisson process of `rate` calls per second that lasts for about
/// `seconds`.
pub fn arrivals(rate: f64, seconds: f64, random: &mut Random) -> Vec<Duration> {
    let count = ((rate * seconds).ceil() as usize).max(MIN_CALLS);
    let mut at = 0.0;
    let mut next = || {
        at -= (1.0 - random.unit()).ln() / rate;
        Duration::from_secs_f64(at)
    };
    (0..count).map(|_| next()).collect()
}

/// The time at which a result arrives. The thread that delivers the result records it.
#[derive(Default)]
struct Received(OnceLock<Instant>);

impl Received {
    /// Returns the recorded time, or records that it is now.
    fn at(&self) -> Instant {
        *self.0.get_or_init(Instant::now)
    }
}

impl Wake for Received {
    fn wake(self: Arc<Self>) {
        self.at();
    }
}

/// Makes a call at each of these times. Returns their latencies when all have been answered.
pub fn run(tasks: &TaskWrapper<Service>, texts: &[String], arrivals: &[Duration]) -> Result<Vec<Duration>> {
    let mut calls = Vec::with_capacity(arrivals.len());
    let begun = Instant::now();
    for (&at, text) in arrivals.iter().zip(texts.iter().cycle()) {
        let due = begun + at;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let mut call = tasks.embed_one(text.clone());
        let received = Arc::new(Received::default());
        let waker = Waker::from(Arc::clone(&received));
        let result = Pin::new(&mut call).poll(&mut Context::from_waker(&waker));
        if result.is_ready() {
            received.at();
        }
        calls.push((due, received, call, result));
    }
    let mut latencies = Vec::with_capacity(calls.len());
    for (due, received, call, result) in calls {
        let result = match result {
            Poll::Ready(result) => result,
            Poll::Pending => call.wait(),
        };
        result?.map_err(Error::msg)?;
        latencies.push(received.at().saturating_duration_since(due));
    }
    Ok(latencies)
}

#[cfg(test)]
mod tests {
    use benches::random::Random;

    use super::arrivals;

    #[test]
    fn arrivals_have_the_rate() {
        let times = arrivals(100.0, 100.0, &mut Random::new(1));
        assert_eq!(times.len(), 10_000);
        assert!(times.is_sorted());
        let seconds = times[times.len() - 1].as_secs_f64();
        assert!((95.0..105.0).contains(&seconds), "{seconds}");
        assert_eq!(times, arrivals(100.0, 100.0, &mut Random::new(1)));
    }
}
