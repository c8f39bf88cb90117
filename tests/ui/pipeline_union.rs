use ray_zerocopy::Pipeline;

#[derive(Pipeline)]
union Number {
    float: f32,
    int: u32,
}

fn main() {}
