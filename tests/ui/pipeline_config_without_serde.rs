use burn::tensor::Device;
use ray_zerocopy::Pipeline;

struct Config;

impl Config {
    fn init(&self, _device: &Device) -> Search {
        Search { config: Config }
    }
}

#[derive(Pipeline)]
struct Search {
    #[pipeline(config)]
    config: Config,
}

fn main() {}
