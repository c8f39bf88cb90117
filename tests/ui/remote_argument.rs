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
    pub fn text(&self, _text: &str) {}

    pub fn slice(&self, _numbers: &[f32]) {}

    pub fn nested(&self, _number: Option<&f32>) {}

    pub fn any(&self, _number: impl Into<f32>) {}

    pub fn pair(&self, (_a, _b): (f32, f32)) {}

    pub fn unnamed(&self, _: f32) {}

    pub fn with_attribute(&self, #[allow(unused)] number: f32) {}
}

fn main() {}
