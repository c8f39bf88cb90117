use ray_zerocopy::remote;

struct Search<'a>(&'a str);

#[remote]
impl<'a> Search<'a> {
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

fn main() {}
