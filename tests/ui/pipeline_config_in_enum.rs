use ray_zerocopy::Pipeline;

#[derive(Pipeline)]
enum Model {
    Small {
        #[pipeline(config)]
        config: usize,
    },
}

fn main() {}
