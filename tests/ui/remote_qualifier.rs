use ray_zerocopy::{Pipeline, remote};

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
    pub async fn later(&self) {}

    pub unsafe fn trusted(&self) {}

    pub extern "C" fn foreign(&self) {}
}

fn main() {}
