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

    // Nothing is called on a wrapper by this name: it has no receiver there.
    pub fn on(&self) {}
}

fn main() {}
