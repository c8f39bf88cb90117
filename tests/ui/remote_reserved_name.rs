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
    pub fn embed(&self) {}

    pub fn load(&mut self, _path: String) {}

    pub fn clone(&self) -> String {
        String::new()
    }

    #[remote(skip)]
    pub fn len(&self) -> usize {
        0
    }

    // This name does not conflict, because the function has no receiver.
    pub fn on(&self) {}
}

fn main() {}
