use ray_zerocopy::remote;

#[remote]
struct Search;

fn main() {}
