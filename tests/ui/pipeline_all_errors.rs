use ray_zerocopy::Pipeline;

// All errors of a pipeline are reported together.
#[derive(Pipeline)]
#[pipeline(inti = Search::new)]
struct Search<'a> {
    #[pipeline(shared)]
    a: usize,
    b: &'a str,
    #[pipeline(rename = "")]
    c: usize,
}

fn main() {}
