//! `rzc run` on files written by numpy: both orders of elements and of bytes, every width, zero
//! dimensions, zero elements.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod common;

use std::fs::File;
use std::io::BufReader;

use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Int, Tensor};
use common::{Folder, rzc};
use ray_zerocopy::Pipeline;
use ray_zerocopy::jit::{TracedGraph, trace};

#[derive(Pipeline)]
#[pipeline(init = Steps::new)]
struct Steps {
    unused: Linear,
}

impl Steps {
    fn new(device: &Device) -> Self {
        Self { unused: LinearConfig::new(1, 1).init(device) }
    }
}

/// Saves three graphs that double their input: a matrix, a cube, and an array of one element.
fn graphs(folder: &Folder) -> [String; 3] {
    let device = Device::flex();
    let steps = Steps::new(&device);
    let save = |graph: TracedGraph, name: &str| {
        let path = folder.at(name);
        graph.save(&path).unwrap();
        path
    };
    let matrix = trace(&steps).input("x", Tensor::<2>::ones([2, 3], &device)).symbol("batch", [("x", 0)]);
    let matrix = matrix.forward(|_, inputs| Ok(inputs.float::<2>("x")?.mul_scalar(2.0))).unwrap();
    let cube = trace(&steps).input("x", Tensor::<3>::ones([2, 3, 4], &device));
    let cube = cube.forward(|_, inputs| Ok(inputs.float::<3>("x")?.mul_scalar(2.0))).unwrap();
    let rate = trace(&steps).input("rate", Tensor::<1, Int>::from_ints([1], &device));
    let rate = rate.forward(|_, inputs| Ok(inputs.int::<1>("rate")?.float().mul_scalar(2.0))).unwrap();
    [save(matrix, "matrix.rzg"), save(cube, "cube.rzg"), save(rate, "rate.rzg")]
}

fn array(name: &str) -> String {
    format!("{}/tests/arrays/{name}.npy", env!("CARGO_MANIFEST_DIR"))
}

/// Runs the graph on an array.
fn run(folder: &Folder, graph: &str, name: &str) -> (Vec<u64>, Vec<f32>) {
    let output = folder.at(&format!("{name}.out.npy"));
    rzc(&["run", graph, "--input", &array(name), "--output", &output]).well();
    let file = npyz::NpyFile::new(BufReader::new(File::open(output).unwrap())).unwrap();
    (file.shape().to_vec(), file.into_vec().unwrap())
}

#[test]
fn arrays_are_read_in_every_order_and_width() {
    let folder = Folder::new();
    let [matrix, cube, rate] = graphs(&folder);
    let expected = (vec![2, 3], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0].map(|x| 2.0 * x).to_vec());
    for name in ["fortran", "big_endian", "half", "double"] {
        assert_eq!(run(&folder, &matrix, name), expected, "{name}");
    }
    assert_eq!(run(&folder, &cube, "cube"), (vec![2, 3, 4], (0..24).map(|x| 2.0 * x as f32).collect()));
    assert_eq!(run(&folder, &rate, "scalar"), (vec![1], vec![32_000.0]));
    assert_eq!(run(&folder, &matrix, "empty"), (vec![0, 3], vec![]));
}

#[test]
fn a_file_that_was_cut_short_is_said_to_be() {
    let folder = Folder::new();
    let [matrix, ..] = graphs(&folder);
    let done = rzc(&["run", &matrix, "--input", &array("cut_short")]);
    let expected = "it is truncated: its header says [2, 3] of <f8, which is 48 bytes, but the file has fewer";
    assert!(done.error().ends_with(expected), "{done:?}");
}
