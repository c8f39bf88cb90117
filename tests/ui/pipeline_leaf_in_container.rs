use ray_zerocopy::Pipeline;
use std::collections::HashMap;

struct Cache;

#[derive(Pipeline)]
struct Search {
    caches: HashMap<String, Vec<(usize, Option<Cache>)>>,
}

fn main() {}
