use ray_zerocopy::{Pipeline, remote};

#[derive(Pipeline)]
#[pipeline(init = Search::new)]
struct Search;

impl Search {
    fn new(_device: &burn::tensor::Device) -> Self {
        Search
    }
}

#[remote]
impl Search {
    pub fn of_type<T>(&self, _value: T) {}

    pub fn of_const<const N: usize>(&self) {}

    pub fn of_lifetime<'a>(&self, _text: std::borrow::Cow<'a, str>) {}
}

fn main() {}
