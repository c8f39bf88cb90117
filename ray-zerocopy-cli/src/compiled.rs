//! What compiling did to a graph: fused operations and packed weights.

use std::collections::{BTreeMap, HashMap};

use ray_zerocopy::jit::GraphInfo;
use serde_json::{Value, json};

use crate::table::size;

/// The fused operations and packed weights of a compiled graph.
pub(crate) struct Compiled {
    /// Number of operations by their names, such as `Linear + gelu`.
    operations: BTreeMap<String, usize>,
    /// Rows and columns of the packed weights by their paths, and the size in bytes.
    packed: HashMap<String, ([usize; 2], u64)>,
}

impl Compiled {
    /// Returns `None` if the graph is not compiled.
    pub(crate) fn of(graph: &GraphInfo) -> Option<Self> {
        if !graph.is_compiled() {
            return None;
        }
        let mut operations = BTreeMap::new();
        for step in graph.steps().filter(|step| step.is_fused) {
            *operations.entry(step.name).or_insert(0) += 1;
        }
        let packed = graph.weights().filter_map(|weight| Some((weight.path, (weight.packed?, weight.tensor.bytes?))));
        Some(Self { operations, packed: packed.collect() })
    }

    /// Number of operations that are fused, or read packed weights.
    pub(crate) fn operations(&self) -> usize {
        self.operations.values().sum()
    }

    /// Rows and columns of a weight, if it is packed.
    pub(crate) fn packed(&self, path: &str) -> Option<[usize; 2]> {
        self.packed.get(path).map(|(shape, _)| *shape)
    }

    fn bytes(&self) -> u64 {
        self.packed.values().map(|(_, bytes)| bytes).sum()
    }

    /// Describes it in a line: `36 Linear (6 with gelu), 6 Attention; 81.0 MiB of weights are packed`.
    pub(crate) fn describe(&self) -> String {
        // Number of operations, and of those with each addition.
        let mut kinds: BTreeMap<&str, (usize, BTreeMap<&str, usize>)> = BTreeMap::new();
        for (name, count) in &self.operations {
            let mut parts = name.split(" + ");
            let kind = kinds.entry(parts.next().unwrap_or_default()).or_default();
            kind.0 += count;
            for part in parts {
                *kind.1.entry(part).or_insert(0) += count;
            }
        }
        let mut kinds: Vec<_> = kinds.into_iter().collect();
        kinds.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
        let kind = |(name, (count, parts)): (&str, (usize, BTreeMap<&str, usize>))| {
            let parts: Vec<_> = parts.iter().map(|(part, count)| format!("{count} with {part}")).collect();
            let parts = if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) };
            format!("{count} {name}{parts}")
        };
        let kinds: Vec<_> = kinds.into_iter().map(kind).collect();
        let kinds = if kinds.is_empty() { "no operation is fused".to_owned() } else { kinds.join(", ") };
        format!("{kinds}; {} of weights are packed", size(self.bytes()))
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "fused": self.operations,
            "packed_tensors": self.packed.len(),
            "packed_bytes": self.bytes(),
        })
    }
}
