use ray_zerocopy::{Pipeline, remote};

#[derive(Pipeline)]
#[pipeline(init = Search::new)]
struct Search;

impl Search {
    fn new(_device: &burn::tensor::Device) -> Self {
        Search
    }
}

// All errors of a block are reported together, and the valid methods can still be called.
#[remote(crates = "ray_zerocopy")]
impl Search {
    pub async fn bad(self, _text: &str) {}

    pub fn worse<T>(&self, (_a, _b): (T, f32)) -> &T {
        panic!()
    }

    pub fn good(&self) {}
}

fn main() {
    let tasks = ray_zerocopy::TaskWrapper::new(&Search).unwrap();
    let _ = tasks.good().wait();
}
