use ray_zerocopy::Pipeline;

// The bounds of a type parameter must state what it is.
#[derive(Pipeline)]
struct Search<M> {
    model: M,
}

fn main() {}
