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
    #[remote(batch)]
    pub fn nothing(&self) -> Vec<u8> {
        Vec::new()
    }

    #[remote(batch)]
    fn private(&self, texts: Vec<String>) -> Vec<String> {
        texts
    }

    #[remote(batch, cost = 3)]
    pub fn costly(&self, texts: Vec<String>) -> Vec<String> {
        texts
    }

    #[remote(batch)]
    #[remote(skip)]
    pub fn twice(&self, texts: Vec<String>) -> Vec<String> {
        texts
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

#[remote]
impl Ranker {
    #[remote(batch)]
    pub fn one_text(&self, text: String) -> Vec<usize> {
        vec![text.len()]
    }

    #[remote(batch)]
    pub fn total(&self, texts: Vec<String>) -> usize {
        texts.len()
    }
}

fn main() {}
