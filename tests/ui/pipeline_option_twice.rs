use ray_zerocopy::Pipeline;

#[derive(Pipeline)]
#[pipeline(init = Search::new, init = Search::build)]
#[pipeline(crate = "ray_zerocopy", crate = "ray_zerocopy")]
struct Search {
    #[pipeline(skip, skip)]
    a: usize,
    #[pipeline(rename = "x")]
    #[pipeline(rename = "y")]
    b: usize,
}

fn main() {}
