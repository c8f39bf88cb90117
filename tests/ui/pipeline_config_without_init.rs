use ray_zerocopy::Pipeline;

#[derive(serde::Serialize, serde::Deserialize)]
struct Config;

#[derive(Pipeline)]
struct Search {
    #[pipeline(config)]
    config: Config,
}

fn main() {}
