use ray_zerocopy::Pipeline;
use std::collections::HashMap;
use std::sync::Arc;

trait Layer {}

#[derive(Pipeline)]
struct Search {
    name: &'static str,
    weights: *const f32,
    activation: fn(f32) -> f32,
    layers: Vec<Box<dyn Layer>>,
    tables: HashMap<String, Option<Arc<[&'static str]>>>,
    #[pipeline(copy)]
    copied: &'static str,
}

#[derive(Pipeline)]
enum Model {
    Named(&'static str),
}

fn main() {}
