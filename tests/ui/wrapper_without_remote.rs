use ray_zerocopy::{Pipeline, TaskWrapper};

#[derive(Pipeline)]
#[pipeline(init = Search::new)]
struct Search;

impl Search {
    fn new(_device: &burn::tensor::Device) -> Self {
        Search
    }
}

fn main() {
    let _ = TaskWrapper::new(&Search);
}
