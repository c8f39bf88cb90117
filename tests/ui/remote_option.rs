use ray_zerocopy::{Pipeline, remote};

#[derive(Pipeline)]
#[pipeline(init = Search::new)]
struct Search;

impl Search {
    fn new(_device: &burn::tensor::Device) -> Self {
        Search
    }
}

#[remote(rename = "Finder")]
impl Search {
    pub fn embed(&self) {}

    #[remote(hide)]
    pub fn hidden(&self) {}

    #[remote]
    pub fn bare(&self) {}
}

fn main() {}
