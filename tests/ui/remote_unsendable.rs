use ray_zerocopy::{Pipeline, remote};

#[derive(Pipeline)]
#[pipeline(init = Search::new)]
struct Search;

impl Search {
    fn new(_device: &burn::tensor::Device) -> Self {
        Search
    }
}

pub struct Query;

pub struct Hit;

#[remote]
impl Search {
    pub fn find(&self, _queries: Vec<Query>) -> Result<Hit, String> {
        Ok(Hit)
    }
}

fn main() {}
