use ray_zerocopy::Pipeline;

struct Cache;

mod inner {
    pub struct Table<T>(pub T);
}

#[derive(Pipeline)]
struct Search {
    cache: Cache,
    table: inner::Table<usize>,
}

fn main() {}
