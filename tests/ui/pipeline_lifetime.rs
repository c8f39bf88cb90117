use ray_zerocopy::Pipeline;

#[derive(Pipeline)]
struct Search<'a> {
    words: std::borrow::Cow<'a, str>,
}

fn main() {}
