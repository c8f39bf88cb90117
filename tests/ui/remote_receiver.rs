use ray_zerocopy::{Pipeline, remote};
use std::sync::Arc;

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
    pub fn by_value(self) {}

    pub fn by_arc(self: Arc<Self>) {}

    pub fn for_ever(&'static self) {}
}

fn main() {}
