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
    pub fn build() -> Self {
        Search
    }

    pub(crate) fn embed(&self) {}

    #[remote(skip)]
    pub fn skipped(&self) {}
}

fn main() {}
