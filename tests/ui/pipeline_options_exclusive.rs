use ray_zerocopy::Pipeline;

#[derive(Pipeline)]
struct Search {
    #[pipeline(copy, module)]
    a: usize,
    #[pipeline(config, skip)]
    b: usize,
    #[pipeline(skip, rename = "d")]
    c: usize,
}

fn main() {}
