use ray_zerocopy::remote;

struct Search;

#[remote]
impl Search {
    pub fn embed(&self) {}
}

fn main() {}
