use ray_zerocopy::remote;

struct Search;

#[remote]
impl Clone for Search {
    fn clone(&self) -> Self {
        Search
    }
}

fn main() {}
