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
    #[remote(stream)]
    pub fn nothing(&self) {}

    #[remote(stream)]
    pub fn tuple(&self) -> (usize, usize) {
        (0, 1)
    }

    #[remote(stream)]
    pub fn may_fail(&self) -> Result<Vec<usize>, String> {
        Ok(Vec::new())
    }

    #[remote(stream)]
    pub fn borrows(&self) -> impl Iterator<Item = &str> {
        ["a"].into_iter()
    }

    #[remote(stream)]
    fn private(&self) -> Vec<usize> {
        Vec::new()
    }

    #[remote(stream, batch)]
    pub fn both(&self) -> Vec<usize> {
        Vec::new()
    }
}

#[derive(Pipeline)]
#[pipeline(init = Ranker::new)]
struct Ranker;

impl Ranker {
    fn new(_device: &burn::tensor::Device) -> Self {
        Ranker
    }
}

struct Texts;

#[remote]
impl Ranker {
    #[remote(stream)]
    pub fn texts(&self) -> Texts {
        Texts
    }
}

fn main() {}
