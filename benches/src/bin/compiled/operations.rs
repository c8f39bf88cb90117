//! Time of each kind of operation: of compiled graphs, and of the peers, as each measures itself.

use std::collections::BTreeMap;
use std::num::NonZero;

use anyhow::Result;
use benches::{Progress, Table};
use ray_zerocopy::jit::Compile;
use serde::Serialize;

use crate::cases::Case;
use crate::peers::{Operations, PRECISIONS, Peer};

/// Number of calls that are measured.
const CALLS: NonZero<usize> = NonZero::new(30).expect("it is not 0");

/// Kinds that are shown; the others are added up.
const SHOWN: usize = 7;

#[derive(Serialize)]
pub struct Row {
    pub model: String,
    pub contestant: &'static str,
    /// The slowest first.
    pub operations: Vec<Operations>,
}

/// Measures the operations of a case.
pub fn measure(case: &Case, peers: &mut [Peer], progress: &Progress) -> Result<Vec<Row>> {
    let Case { model, graph, inputs, peer } = case;
    let mut rows = Vec::new();
    let mut add = |contestant, mut operations: Vec<Operations>| {
        operations.sort_by(|a, b| b.micros.total_cmp(&a.micros));
        rows.push(Row { model: model.clone(), contestant, operations });
    };
    progress.step(format!("{model}: measures its operations"));
    for (name, options) in [("compiled", Compile::f32()), ("compiled, int8", Compile::int8())] {
        let compiled = graph.compile(options)?;
        let names: BTreeMap<_, _> = compiled.info().steps().map(|step| (step.number, step.name)).collect();
        let mut kinds: BTreeMap<&str, (usize, f64)> = BTreeMap::new();
        for step in compiled.profile("cpu", inputs.clone(), CALLS)?.steps {
            let name = names.get(&step.number).map_or("?", |name| kind(name));
            let (count, micros) = kinds.entry(name).or_default();
            (*count, *micros) = (*count + 1, *micros + step.time.as_secs_f64() * 1e6);
        }
        let operations =
            kinds.into_iter().map(|(name, (count, micros))| Operations { name: name.to_owned(), count, micros });
        add(name, operations.collect());
    }
    for ((_, name), process) in PRECISIONS.into_iter().zip(peers) {
        let Some(peer) = peer else { continue };
        process.load(peer, 1)?;
        process.set_inputs([inputs])?;
        add(name, process.profile(CALLS.get())?);
    }
    Ok(rows)
}

/// The name of an operation without what follows it.
fn kind(name: &str) -> &str {
    name.split(" + ").next().unwrap_or(name)
}

/// The table.
pub fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(["model", "contestant", "µs in a call", "of them, by kind of operation (number: µs)"]);
    for Row { model, contestant, operations } in rows {
        let total: f64 = operations.iter().map(|operation| operation.micros).sum();
        let shown = |Operations { name, count, micros }: &Operations| format!("{name} ({count}: {micros:.0})");
        let mut parts: Vec<_> = operations.iter().take(SHOWN).map(shown).collect();
        if let Some(others) = operations.get(SHOWN..).filter(|others| !others.is_empty()) {
            let (count, micros) =
                others.iter().fold((0, 0.0), |(count, micros), other| (count + other.count, micros + other.micros));
            parts.push(format!("others ({count}: {micros:.0})"));
        }
        table.row([model.clone(), (*contestant).to_owned(), format!("{total:.0}"), parts.join(", ")]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::kind;

    #[test]
    fn kinds_are_names_without_what_follows() {
        assert_eq!(kind("Linear int8 + gelu + residual"), "Linear int8");
        assert_eq!(kind("Softmax"), "Softmax");
    }
}
