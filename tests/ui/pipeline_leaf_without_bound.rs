use ray_zerocopy::Pipeline;

// What a type parameter is, its bounds have to say.
#[derive(Pipeline)]
struct Search<M> {
    model: M,
}

fn main() {}
