//! The nodes of a picture: inputs, operations and outputs of a graph, and what each reads.

use std::collections::{HashMap, HashSet};

use ray_zerocopy::jit::{GraphInfo, Operand, PortInfo, StepInfo, TensorInfo, WeightInfo};

use super::kinds::Kind;

/// Most results of an operation that its readers show.
const MOST_RESULTS: usize = 8;

/// Inputs, operations and outputs of a graph, in this order. A node reads nodes before it.
pub(crate) struct Nodes {
    pub nodes: Vec<Node>,
    pub weights: Vec<WeightInfo>,
    /// Number of inputs: the first nodes.
    pub inputs: usize,
}

/// An input, an operation or an output.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Name of the operation or the port.
    pub title: String,
    pub kind: Kind,
    /// Index of the operation in the graph.
    pub step: Option<usize>,
    pub is_fused: bool,
    /// `false` for views that are left out. Their readers read the viewed tensor.
    pub is_visible: bool,
    /// The nodes that it reads, without repetitions.
    pub sources: Vec<usize>,
    /// The weights that it reads, by index.
    pub weights: Vec<usize>,
    /// Operands in their order: a description of each.
    pub operands: Vec<String>,
    /// Types and shapes of the results.
    pub results: Vec<String>,
}

impl Nodes {
    /// Reads a graph. Views are left out, unless `views` is set.
    pub(crate) fn of(graph: &GraphInfo, views: bool) -> Self {
        let ports: Vec<_> = graph.inputs().collect();
        let steps: Vec<_> = graph.steps().collect();
        let weights: Vec<_> = graph.weights().collect();
        let places: HashMap<_, _> = weights.iter().enumerate().map(|(at, weight)| (weight.path.as_str(), at)).collect();
        let mut all = Self { nodes: ports.iter().map(port).collect(), weights: Vec::new(), inputs: ports.len() };
        for step in &steps {
            let node = all.operation(step, views, &ports, &steps, &places);
            all.nodes.push(node);
        }
        for (own, operand) in graph.outputs().zip(graph.output_operands()) {
            let mut node = port(&own);
            all.read(&mut node, &mut HashSet::new(), &operand, &places);
            all.nodes.push(node);
        }
        all.weights = weights;
        all
    }

    fn operation(
        &self,
        step: &StepInfo,
        views: bool,
        ports: &[PortInfo],
        steps: &[StepInfo],
        places: &HashMap<&str, usize>,
    ) -> Node {
        let mut node = Node {
            title: step.name.clone(),
            kind: Kind::of(&step.name, step.computes),
            step: Some(step.number),
            is_fused: step.is_fused,
            is_visible: step.computes || views,
            sources: Vec::new(),
            weights: Vec::new(),
            operands: step.inputs.iter().map(|operand| describe(operand, ports, steps)).collect(),
            results: step.outputs.iter().map(TensorInfo::to_string).collect(),
        };
        let mut known = HashSet::new();
        for operand in &step.inputs {
            self.read(&mut node, &mut known, operand, places);
        }
        node
    }

    /// Adds an operand. That of an omitted view is what the view reads. `known` are the sources of the node.
    fn read(&self, node: &mut Node, known: &mut HashSet<usize>, operand: &Operand, places: &HashMap<&str, usize>) {
        let mut source = |source: usize| {
            if known.insert(source) {
                node.sources.push(source);
            }
        };
        let at = match operand {
            Operand::Input(input) => return source(*input),
            Operand::Step(step) => self.inputs + step,
            Operand::Constant(path) => {
                node.weights.extend(places.get(path.as_str()));
                return;
            }
            _ => return,
        };
        match self.nodes.get(at) {
            Some(read) if !read.is_visible => {
                read.sources.iter().copied().for_each(source);
                node.weights.extend(&read.weights);
            }
            Some(_) => source(at),
            None => {}
        }
    }
}

fn port(port: &PortInfo) -> Node {
    Node {
        title: port.name.clone(),
        kind: Kind::Port,
        step: None,
        is_fused: false,
        is_visible: true,
        sources: Vec::new(),
        weights: Vec::new(),
        operands: Vec::new(),
        results: vec![format!("{} [{}]", port.dtype, port.shape.join(", "))],
    }
}

/// Describes an operand with its type and shape.
fn describe(operand: &Operand, ports: &[PortInfo], steps: &[StepInfo]) -> String {
    match operand {
        Operand::Input(input) => match ports.get(*input) {
            Some(port) => format!("input {}: {} [{}]", port.name, port.dtype, port.shape.join(", ")),
            None => operand.to_string(),
        },
        Operand::Step(number) => match steps.get(*number) {
            Some(step) => {
                let results: Vec<_> = step.outputs.iter().take(MOST_RESULTS).map(TensorInfo::to_string).collect();
                let more = if step.outputs.len() > MOST_RESULTS { ", …" } else { "" };
                format!("#{number} {}: {}{more}", step.name, results.join(", "))
            }
            None => operand.to_string(),
        },
        other => other.to_string(),
    }
}
