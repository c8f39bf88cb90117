use ray_zerocopy::Pipeline;

#[derive(Pipeline)]
struct Search {
    #[pipeline]
    a: usize,
    #[pipeline = "skip"]
    b: usize,
    #[pipeline(skip = true)]
    c: usize,
    #[pipeline(skip copy)]
    d: usize,
    #[pipeline(rename)]
    e: usize,
    #[pipeline(rename = f)]
    f: usize,
}

#[derive(Pipeline)]
#[pipeline(init = "Quoted::new")]
struct Quoted;

#[derive(Pipeline)]
#[pipeline(init = |device| Closure)]
struct Closure;

#[derive(Pipeline)]
#[pipeline(crate = ray_zerocopy)]
struct Unquoted;

#[derive(Pipeline)]
#[pipeline(crate = "ray zerocopy")]
struct NoPath;

fn main() {}
