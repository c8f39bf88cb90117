use burn::tensor::Device;
use ray_zerocopy::Pipeline;

#[derive(serde::Serialize, serde::Deserialize)]
struct Config;

impl Config {
    fn init(&self, _device: &Device) -> usize {
        0
    }
}

#[derive(Pipeline)]
struct Search {
    #[pipeline(config)]
    config: Config,
}

fn main() {}
