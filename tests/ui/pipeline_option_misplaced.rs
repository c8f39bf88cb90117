use ray_zerocopy::Pipeline;

#[derive(Pipeline)]
#[pipeline(config)]
struct Search {
    #[pipeline(init = Search::new)]
    encoder: usize,
    #[pipeline(crate = "ray_zerocopy")]
    decoder: usize,
}

#[derive(Pipeline)]
enum Model {
    #[pipeline(skip)]
    Small(usize),
}

fn main() {}
