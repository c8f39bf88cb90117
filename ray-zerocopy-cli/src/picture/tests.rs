//! Tests of pictures, on small models.

use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig, Lstm, LstmConfig, PaddingConfig2d};
use burn::tensor::activation::{gelu, relu};
use burn::tensor::{Device, Distribution, Tensor};
use ray_zerocopy::Pipeline;
use ray_zerocopy::jit::{Compile, TracedGraph, trace};

use super::{Picture, html, svg};

/// Layers with a norm before and a residual after, as in most transformers.
#[derive(Pipeline)]
#[pipeline(init = Deep::new)]
struct Deep {
    embed: Linear,
    layers: Vec<Layer>,
    head: Linear,
}

#[derive(Module, Debug)]
struct Layer {
    norm: LayerNorm,
    up: Linear,
    down: Linear,
}

impl Deep {
    fn new(device: &Device) -> Self {
        let linear = |from, to| LinearConfig::new(from, to).init(device);
        let layer = |_| {
            let mut norm = LayerNormConfig::new(8).init(device);
            // Equal weights would be stored once, under the path of the first one.
            let random = || Tensor::<1>::random([8], Distribution::Default, device);
            (norm.gamma, norm.beta) = (Param::from_tensor(random()), Some(Param::from_tensor(random())));
            Layer { norm, up: linear(8, 16), down: linear(16, 8) }
        };
        Self { embed: linear(4, 8), layers: (0..4).map(layer).collect(), head: linear(8, 2) }
    }

    fn graph(&self) -> TracedGraph {
        let rows = Tensor::<2>::ones([3, 4], &Device::flex());
        let traced = trace(self).input("rows", rows).symbol("batch", [("rows", 0)]).forward(|deep, inputs| {
            let mut x = deep.embed.forward(inputs.float::<2>("rows")?);
            for layer in &deep.layers {
                let y = gelu(layer.up.forward(layer.norm.forward(x.clone())));
                x = x + layer.down.forward(y);
            }
            Ok(deep.head.forward(x))
        });
        traced.unwrap()
    }
}

/// A residual network: two stages of two blocks, where the blocks of a stage are equal.
#[derive(Pipeline)]
#[pipeline(init = Residual::new)]
struct Residual {
    stem: Conv2d,
    stage1: Vec<Block>,
    stage2: Vec<Block>,
}

#[derive(Module, Debug)]
struct Block {
    one: Conv2d,
    two: Conv2d,
}

impl Residual {
    fn new(device: &Device) -> Self {
        let conv =
            |channels: [usize; 2]| Conv2dConfig::new(channels, [3, 3]).with_padding(PaddingConfig2d::Same).init(device);
        let block = |_| Block { one: conv([4, 4]), two: conv([4, 4]) };
        Self { stem: conv([3, 4]), stage1: (0..2).map(block).collect(), stage2: (0..2).map(block).collect() }
    }

    fn graph(&self) -> TracedGraph {
        let image = Tensor::<4>::ones([1, 3, 8, 8], &Device::flex());
        let traced = trace(self).input("image", image).forward(|net, inputs| {
            let mut x = relu(net.stem.forward(inputs.float::<4>("image")?));
            for block in net.stage1.iter().chain(&net.stage2) {
                x = relu(x.clone() + block.two.forward(relu(block.one.forward(x))));
            }
            Ok(x.mean_dim(3).mean_dim(2))
        });
        traced.unwrap()
    }
}

fn picture(graph: &TracedGraph) -> Picture {
    Picture::new(graph.info(), false, None).unwrap()
}

#[test]
fn repeated_layers_are_folded() {
    let deep = Deep::new(&Device::flex()).graph();
    for graph in [&deep, &deep.compile(Compile::f32()).unwrap()] {
        let picture = picture(graph);
        assert_eq!(picture.repeated(), [("layers.0–3", 4)], "{graph:?}");
        let shown = picture.members.values().map(Vec::len).collect::<Vec<_>>();
        assert!(shown.iter().all(|count| [1, 4].contains(count)), "{shown:?}");
    }
    let picture = picture(&deep);
    let [from, to] = ["Gelu", "LayerNorm"].map(|title| {
        picture.members.iter().find(|(id, _)| picture.nodes.nodes[**id].title == title).map(|(_, all)| all.len())
    });
    assert_eq!((from, to), (Some(4), Some(4)));
}

#[test]
fn blocks_contain_their_residuals() {
    let graph = Residual::new(&Device::flex()).graph();
    let picture = picture(&graph);
    assert_eq!(picture.repeated(), [("stage1–2", 2), ("0–1", 2)]);
    let additions = picture.members.iter().filter(|(id, _)| picture.nodes.nodes[**id].title == "Add");
    assert!(additions.map(|(_, members)| members.len()).eq([4]));
    let compiled = graph.compile(Compile::f32()).unwrap();
    let picture = Picture::new(compiled.info(), false, None).unwrap();
    assert_eq!(picture.repeated(), [("stage1–2", 2), ("0–1", 2)]);
    let fused = picture.members.iter().filter(|(id, _)| picture.nodes.nodes[**id].is_fused);
    assert_eq!(fused.map(|(_, members)| members.len()).sum::<usize>(), 9, "one of each convolution");
}

#[test]
fn pictures_contain_every_shown_node() {
    let graph = Deep::new(&Device::flex()).graph();
    let picture = picture(&graph);
    let (svg, html) = (svg::draw(&picture), html::page(&picture));
    for text in ["rows", "F32 [batch, 8]", "layers.0–3 ×4", "Gelu", "4 × 8", "prefers-color-scheme: dark"] {
        assert!(svg.contains(text) && html.contains(text), "{text}");
    }
    assert!(html.contains("layers.3.down.weight"), "weights of folded groups are in the details");
    assert!(!html.contains("src=") && !html.contains("http://www.w3.org/1999"), "no other file is loaded");
}

#[test]
fn inner_groups_of_large_graphs_are_closed() {
    let graph = Deep::new(&Device::flex()).graph();
    let mut picture = picture(&graph);
    assert!(picture.closed().iter().all(|closed| !closed));
    for id in 1000..1000 + 2 * super::MOST {
        picture.members.insert(id, vec![]);
    }
    assert!(picture.closed().contains(&true) && !picture.closed()[0]);
}

/// A recurrent layer, which is recorded once for each step.
#[derive(Pipeline)]
#[pipeline(init = Recurrent::new)]
struct Recurrent {
    lstm: Lstm,
    head: Linear,
}

impl Recurrent {
    fn new(device: &Device) -> Self {
        Self { lstm: LstmConfig::new(4, 8, true).init(device), head: LinearConfig::new(8, 1).init(device) }
    }
}

#[test]
fn unrolled_layer_is_one_closed_group() {
    let device = Device::flex();
    let steps = Tensor::<3>::ones([1, 5, 4], &device);
    let traced = trace(&Recurrent::new(&device)).input("steps", steps).forward(|model, inputs| {
        let (y, _) = model.lstm.forward(inputs.float::<3>("steps")?, None);
        Ok(model.head.forward(relu(y)))
    });
    let graph = traced.unwrap();
    let drawn = picture(&graph);
    let names: Vec<_> = drawn.panels.iter().filter(|own| own.parent == Some(0)).map(|own| own.name.as_str()).collect();
    assert_eq!(names, ["lstm"]);
    let svg = svg::draw(&drawn);
    assert!(!svg.contains("Sigmoid") && svg.contains("of weights") && svg.contains("F32 [1, 5, 8]"), "{svg}");
    assert!(html::page(&drawn).contains("Sigmoid"), "it can be opened");
    assert!(
        svg::draw(&Picture::new(graph.info(), true, None).unwrap()).contains("Sigmoid"),
        "all operations are shown"
    );
}

/// A graph of rows that are summed.
fn sums(forward: impl Fn(Tensor<1>) -> Tensor<1>) -> TracedGraph {
    let rows = Tensor::<1>::ones([1], &Device::flex());
    let deep = Deep::new(&Device::flex());
    let traced = trace(&deep).input("rows", rows);
    traced.forward(|_, inputs| Ok(forward(inputs.float::<1>("rows")?))).unwrap()
}

#[test]
fn graphs_that_are_too_large_for_a_picture_are_refused() {
    let long = |count| sums(|rows| (0..count).fold(rows.clone(), |sum, _| sum + rows.clone()));
    let error = Picture::new(long(super::MOST_OPERATIONS).info(), false, None).err().unwrap().to_string();
    assert_eq!(
        error,
        "the graph has 20002 operations, inputs and outputs, and a picture at most 20000: leave out --svg and --html"
    );
    let drawn = svg::draw(&picture(&long(2000)));
    assert_eq!(drawn.matches("class=\"arrow\"").count(), 2 * 2000);
    // Each result is read again, in the reverse order.
    let wide = sums(|rows| {
        let results: Vec<_> = std::iter::successors(Some(rows), |rows| Some(rows.clone() + 1.0)).take(2500).collect();
        results.into_iter().rev().reduce(|sum, rows| sum + rows).unwrap()
    });
    let error = Picture::new(wide.info(), false, None).err().unwrap().to_string();
    assert!(error.contains("more than 2000000 places"), "{error}");
}
