use burn::nn::Linear;
use ray_zerocopy::Pipeline;
use std::collections::HashMap;

#[derive(PartialEq, Eq, Hash)]
struct Language(u8);

#[derive(Pipeline)]
struct Search {
    heads: HashMap<Language, Linear>,
}

fn main() {}
