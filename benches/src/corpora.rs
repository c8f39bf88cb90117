//! Texts to embed. They depend only on the seed.

use ray_zerocopy_examples::corpus;

use crate::random::Random;

/// A named list of texts.
#[derive(Debug, Clone)]
pub struct Corpus {
    /// The name.
    pub name: &'static str,
    /// The texts.
    pub texts: Vec<String>,
}

/// Picks `count` of the bundled sentences at random. They have about 14 tokens each.
pub fn sentences(count: usize, seed: u64) -> Corpus {
    let all = corpus::sentences();
    let mut random = Random::new(seed);
    let texts = (0..count).map(|_| random.pick(&all).clone()).collect();
    Corpus { name: "sentences", texts }
}

/// Creates texts of one to eight of the bundled sentences, mostly short ones, as real paragraphs
/// vary in length.
pub fn mixed(count: usize, seed: u64) -> Corpus {
    let all = corpus::sentences();
    let mut random = Random::new(seed);
    let text = |random: &mut Random| {
        let sentences = *random.pick(&[1, 1, 1, 1, 2, 2, 3, 4, 8]);
        (0..sentences).map(|_| random.pick(&all).as_str()).collect::<Vec<_>>().join(" ")
    };
    let texts = (0..count).map(|_| text(&mut random)).collect();
    Corpus { name: "mixed", texts }
}
