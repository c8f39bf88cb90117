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
    pub fn name(&self) -> &str {
        "search"
    }

    pub fn all(&self) -> impl Iterator<Item = f32> {
        std::iter::empty()
    }

    pub fn never(&self) -> ! {
        panic!()
    }
}

fn main() {}
