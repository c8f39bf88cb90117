use ray_zerocopy::{Pipeline, TaskWrapper, remote};

#[derive(Pipeline)]
#[pipeline(init = Search::new)]
struct Search;

impl Search {
    fn new(_device: &burn::tensor::Device) -> Self {
        Search
    }
}

#[remote]
impl Search {
    pub fn embed(&self) {}

    pub fn learn(&mut self) {}
}

// A worker of tasks keeps no state, so only actors have `learn`.
fn main() {
    let tasks = TaskWrapper::new(&Search).unwrap();
    let _ = tasks.embed().wait();
    let _ = tasks.learn().wait();
}
