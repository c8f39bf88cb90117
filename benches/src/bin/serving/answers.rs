//! Checks that a text has the same vector alone and in a batch.

use std::time::Duration;

use anyhow::{Error, Result};
use benches::stats::difference_max;
use benches::{Progress, Table};
use burn::tensor::Tensor;
use ray_zerocopy::{Batching, TaskWrapper, gather};
use serde::Serialize;

use crate::contestants::{BATCHED, HAND_BATCHED, UNBATCHED, Workers};
use crate::service::{ROWS, Service};

#[derive(Serialize)]
pub struct Row {
    workers: &'static str,
    calls: &'static str,
    texts: usize,
    /// Number of rows of the largest batch, if calls were put together.
    largest_batch: Option<u64>,
    /// Largest difference from the vectors of unbatched calls of worker processes.
    difference_max: f32,
    pub outputs_equal: bool,
}

/// Limit for rounding differences. The numbers of a vector are about 0.05.
const TOLERANCE: f32 = 1e-4;

/// Time for which a call waits for the others, so that they certainly run as one batch.
const PATIENCE: Duration = Duration::from_secs(5);

pub fn check(workers: &[Workers], texts: &[String], progress: &Progress) -> Result<Vec<Row>> {
    progress.step("comparing vectors");
    let texts = &texts[..texts.len().min(ROWS)];
    let mut rows = Vec::new();
    let mut expected = None;
    for Workers { name, tasks } in workers {
        let together = tasks.clone().batch(Batching::default().max_rows(texts.len()).max_wait(PATIENCE));
        let alone = each(tasks, texts)?;
        let batched = each(&together, texts)?;
        let by_hand = numbers(tasks.embed(texts.to_vec()).wait()?.map_err(Error::msg)?)?;
        let largest_batch = together.report()?.batches.first().map(|batches| batches.largest);
        let expected = &*expected.get_or_insert_with(|| alone.clone());
        let mut row = |calls, vectors: &[f32], largest_batch| {
            let difference_max = difference_max(expected, vectors);
            let outputs_equal = difference_max < TOLERANCE;
            rows.push(Row { workers: name, calls, texts: texts.len(), largest_batch, difference_max, outputs_equal });
        };
        row(UNBATCHED, &alone, None);
        row(BATCHED, &batched, largest_batch);
        row(HAND_BATCHED, &by_hand, None);
    }
    Ok(rows)
}

/// Embeds each text by a call of its own. Returns the numbers of all vectors.
fn each(tasks: &TaskWrapper<Service>, texts: &[String]) -> Result<Vec<f32>> {
    let mut all = Vec::new();
    for vector in gather(texts.iter().map(|text| tasks.embed_one(text.clone()))).wait()? {
        all.extend(numbers(vector.map_err(Error::msg)?)?);
    }
    Ok(all)
}

fn numbers<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    tensor.into_data().try_into_vec().map_err(|error| anyhow::anyhow!("the vectors are not f32: {error:?}"))
}

pub fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(["vectors of", "calls", "texts", "largest batch", "difference"]);
    for Row { workers, calls, texts, largest_batch, difference_max, .. } in rows {
        table.row([
            (*workers).to_owned(),
            (*calls).to_owned(),
            texts.to_string(),
            largest_batch.map_or_else(|| "-".to_owned(), |rows| rows.to_string()),
            format!("{difference_max:.0e}"),
        ]);
    }
    table
}
