use burn::nn::Linear;
use ray_zerocopy::Pipeline;

#[derive(Pipeline)]
struct Search {
    #[pipeline(copy)]
    encoder: Linear,
}

fn main() {}
