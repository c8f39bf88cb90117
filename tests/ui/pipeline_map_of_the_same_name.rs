use burn::nn::Linear;
use ray_zerocopy::Pipeline;

struct HashMap<K, V>(Vec<(K, V)>);

#[derive(Pipeline)]
struct Search {
    heads: HashMap<String, Linear>,
}

fn main() {}
