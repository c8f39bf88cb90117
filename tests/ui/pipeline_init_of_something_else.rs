use burn::tensor::Device;
use ray_zerocopy::Pipeline;

#[derive(Pipeline)]
#[pipeline(init = Search::new)]
struct Search;

impl Search {
    fn new(_device: &Device) -> usize {
        0
    }
}

#[derive(Pipeline)]
#[pipeline(init = Other::new)]
struct Other;

impl Other {
    fn new() -> Self {
        Other
    }
}

fn main() {}
