use ray_zerocopy::Pipeline;

#[derive(Pipeline)]
#[pipeline(inti = Search::new)]
struct Search {
    #[pipeline(shared)]
    encoder: usize,
}

fn main() {}
