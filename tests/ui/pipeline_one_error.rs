use burn::tensor::Device;
use ray_zerocopy::{Pipeline, TaskWrapper, remote};

// An invalid pipeline still implements the traits, so there is one error and not one for each use.
#[derive(Pipeline)]
struct Search {
    #[pipeline(confg)]
    config: Config,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Config;

impl Config {
    fn init(&self, _device: &Device) -> Search {
        Search { config: Config }
    }
}

#[remote]
impl Search {
    pub fn embed(&self, text: String) -> usize {
        text.len()
    }
}

fn main() {
    let search = Config.init(&Device::flex());
    let tasks = TaskWrapper::new(&search).unwrap();
    let _ = tasks.embed("a text".to_owned()).wait();
}
