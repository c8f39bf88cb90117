use ray_zerocopy::Pipeline;

#[derive(Pipeline)]
struct Search {
    #[pipeline(config)]
    encoder: usize,
    #[pipeline(config)]
    decoder: usize,
}

fn main() {}
