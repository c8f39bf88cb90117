use ray_zerocopy::Pipeline;

#[derive(Pipeline)]
struct Search {
    #[pipeline(rename = "")]
    a: usize,
    #[pipeline(rename = "layers.0")]
    b: usize,
    #[pipeline(rename = "e")]
    c: usize,
    e: usize,
    #[pipeline(rename = "c2")]
    f: usize,
    #[pipeline(rename = "c2")]
    g: usize,
}

fn main() {}
