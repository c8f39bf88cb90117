use burn::nn::Linear;
use ray_zerocopy::Pipeline;

enum Option<T> {
    Some(T),
}

struct Vec<T>(T);

#[derive(Pipeline)]
struct Search {
    reranker: Option<Linear>,
    heads: Vec<Linear>,
}

fn main() {}
