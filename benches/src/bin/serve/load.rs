//! Load: clients that call again and again for some time.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinSet;

use crate::Sum;
use crate::clients::Client;

/// Calls of each client that are not measured.
const WARM: usize = 8;

/// Lets all clients call for `time`, and adds their calls to `sum`.
pub(crate) async fn run(clients: Vec<Client>, time: Duration, sum: &mut Sum) -> Result<()> {
    let mut tasks = JoinSet::new();
    for mut client in clients {
        tasks.spawn(async move {
            for _ in 0..WARM {
                client.pause().await?;
                client.call().await?;
            }
            let (begun, mut durations) = (Instant::now(), Vec::new());
            while begun.elapsed() < time {
                client.pause().await?;
                let call = Instant::now();
                client.call().await?;
                durations.push(call.elapsed());
            }
            Ok::<_, anyhow::Error>((durations, begun.elapsed()))
        });
    }
    let mut longest = Duration::ZERO;
    while let Some(done) = tasks.join_next().await {
        let (durations, took) = done??;
        sum.calls += durations.len();
        longest = longest.max(took);
        for duration in durations {
            sum.samples.push(duration);
        }
    }
    sum.time += longest;
    Ok(())
}
