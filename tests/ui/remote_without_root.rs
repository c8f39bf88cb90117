use ray_zerocopy::{Pipeline, remote};

// A pipeline that nothing rebuilds.
#[derive(Pipeline)]
struct Search;

#[remote]
impl Search {
    pub fn embed(&self) {}
}

fn main() {}
