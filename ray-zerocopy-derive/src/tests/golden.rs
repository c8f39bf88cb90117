//! Expansions, compared with the files in `tests/golden`, which also show what the macros write.
//! `BLESS=1 cargo test` rewrites the files.

use crate::{expand, remote};
use proc_macro2::TokenStream;
use quote::quote;
use std::path::Path;
use std::{env, fs};

#[test]
fn structure() {
    derive(
        "struct",
        quote! {
            #[derive(Pipeline)]
            pub struct Search {
                #[pipeline(config)]
                config: SearchConfig,
                encoder: burn::nn::Linear,
                heads: HashMap<String, Vec<Linear>>,
                reranker: Option<Box<Reranker>>,
                pair: (Linear, std::sync::Arc<Tokenizer>),
                vocabulary: Vec<String>,
                #[pipeline(module, rename = "last")]
                r#final: [Linear; 2],
                #[pipeline(copy)]
                limits: Vec<Limits>,
                #[pipeline(skip)]
                calls: AtomicUsize,
                marker: PhantomData<f32>,
            }
        },
    );
}

#[test]
fn enumeration() {
    derive(
        "enum",
        quote! {
            #[derive(Pipeline)]
            #[pipeline(init = Model::new)]
            enum Model {
                Small(Linear, #[pipeline(skip)] Cache),
                Large { layers: Vec<Linear>, r#type: String },
                Absent,
            }
        },
    );
}

#[test]
fn streams() {
    remote_golden(
        "remote_stream",
        quote! {},
        quote! {
            impl Search {
                /// Finds texts, one after the other.
                #[remote(stream)]
                pub fn find(&self, query: String) -> impl Iterator<Item = Result<String, SearchError>> + '_ {
                    self.texts(query)
                }

                #[remote(stream)]
                pub fn boxed(&mut self) -> Box<dyn Iterator<Item = Self> + '_> {
                    Box::new(std::iter::empty())
                }

                #[remote(stream)]
                pub fn named(&self) -> Texts {
                    Texts
                }
            }
        },
    );
}

#[test]
fn batches() {
    remote_golden(
        "remote_batch",
        quote! {},
        quote! {
            impl Search {
                /// Embeds each text.
                #[remote(batch, cost = tokens)]
                pub fn embed(&self, texts: Vec<String>, normalise: bool) -> Result<Tensor<2>, String> {}
                #[remote(batch)]
                pub fn learn(&mut self, rows: Tensor<2>) -> Tensor<1> {}
            }
        },
    );
}

#[test]
fn generics() {
    derive(
        "generic",
        quote! {
            #[derive(Pipeline)]
            #[pipeline(crate = "my_crate::reexport")]
            struct Wrapper<M: Module = Linear, const N: usize = 2>([M; N], M::Config) where M: Debug;
        },
    );
}

#[test]
fn nothing_inside() {
    derive("unit", quote! { #[derive(Pipeline)] struct Nothing; });
    derive("never", quote! { #[derive(Pipeline)] enum Never {} });
}

#[test]
fn fallback() {
    derive(
        "fallback",
        quote! {
            #[derive(Pipeline)]
            struct Broken<'a, M> {
                name: &'a str,
                model: M,
            }
        },
    );
}

#[test]
fn remote_block() {
    remote_golden(
        "remote",
        quote! {},
        quote! {
            impl<M: Module> Search<M>
            where
                Self: Sized,
            {
                /// Embeds each text.
                /// One row a text.
                ///
                /// # Panics
                pub fn embed(&self, texts: Vec<String>, mut k: usize) -> Tensor<2> {
                    k += 1;
                    self.run(texts, k)
                }
                #[cfg(feature = "learning")]
                pub fn learn(&mut self, other: Option<Self>, sizes: [f32; Self::SIZES]) {}
                #[remote(skip)]
                pub fn borrow(&self) -> &M {
                    &self.encoder
                }
                pub fn new() -> Self {
                    Self::default()
                }
                fn run(&self, texts: Vec<String>, k: usize) -> Tensor<2> {
                    self.encoder.forward(texts, k)
                }
            }
        },
    );
}

#[test]
fn remote_with_one_bad_method_keeps_the_others() {
    remote_golden(
        "remote_fallback",
        quote! { crate = "my_crate::reexport" },
        quote! {
            impl Search {
                pub fn good(&self) {}
                pub fn bad(&self, text: &str) {}
            }
        },
    );
}

fn derive(name: &str, input: TokenStream) {
    let expansion = expand::derive(&syn::parse2(input.clone()).unwrap());
    compare(name, input, expansion);
}

fn remote_golden(name: &str, options: TokenStream, block: TokenStream) {
    let expansion = remote::remote(options.clone(), block.clone());
    let options = (!options.is_empty()).then(|| quote! { (#options) });
    compare(name, quote! { #[ray_zerocopy::remote #options] #block }, expansion);
}

fn compare(name: &str, input: TokenStream, expansion: TokenStream) {
    let [input, expansion] = [input, expansion].map(|tokens| prettyplease::unparse(&syn::parse2(tokens).unwrap()));
    let found = format!("// What the user writes:\n{input}\n// What it becomes:\n{expansion}");
    let path = Path::new("tests/golden").join(format!("{name}.rs"));
    if env::var_os("BLESS").is_some() {
        fs::write(&path, found).unwrap();
        return;
    }
    let expected = fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; `BLESS=1 cargo test` writes it", path.display()));
    assert!(
        found == expected,
        "the expansion differs from {}; `BLESS=1 cargo test` accepts it. It is now:\n{found}",
        path.display(),
    );
}
