use ray_zerocopy::Pipeline;

#[derive(Pipeline)]
#[pipeline(init = Search::new)]
struct Search {
    #[pipeline(config)]
    config: usize,
}

fn main() {}
