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
    pub fn search(&mut self) {}

    #[remote(on_swap)]
    fn shared(&self, _old: &Self) {}

    #[remote(on_swap)]
    fn alone(&mut self) {}

    #[remote(on_swap)]
    fn may_fail(&mut self, _old: &mut Self) -> Result<(), String> {
        Ok(())
    }

    #[remote(on_swap)]
    async fn later(&mut self, _old: &mut Self) {}

    #[remote(on_swap)]
    fn first(&mut self, _old: &mut Self) {}

    #[remote(on_swap)]
    fn second(&mut self, _old: &mut Search) {}

    #[remote(on_swap = second)]
    fn named(&mut self, _old: &mut Self) {}
}

fn main() {}
