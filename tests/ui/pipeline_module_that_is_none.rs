use ray_zerocopy::Pipeline;

#[derive(serde::Serialize, serde::Deserialize)]
struct Tokenizer;

#[derive(Pipeline)]
struct Search {
    #[pipeline(module)]
    tokenizers: Vec<Tokenizer>,
}

fn main() {}
