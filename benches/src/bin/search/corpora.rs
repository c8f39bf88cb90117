//! The texts that are embedded. They depend only on the seed.

use ray_zerocopy_examples::corpus;

/// A named list of texts.
pub struct Corpus {
    pub name: &'static str,
    pub texts: Vec<String>,
}

/// Picks `count` of the bundled sentences at random. They have about 14 tokens each.
pub fn sentences(count: usize, seed: u64) -> Corpus {
    let all = corpus::sentences();
    let mut random = Random(seed);
    let texts = (0..count).map(|_| random.pick(&all).clone()).collect();
    Corpus { name: "sentences", texts }
}

/// Creates texts of one to eight of the bundled sentences, mostly short ones, as real paragraphs
/// vary in length.
pub fn mixed(count: usize, seed: u64) -> Corpus {
    let all = corpus::sentences();
    let mut random = Random(seed);
    let text = |random: &mut Random| {
        let sentences = *random.pick(&[1, 1, 1, 1, 2, 2, 3, 4, 8]);
        (0..sentences).map(|_| random.pick(&all).as_str()).collect::<Vec<_>>().join(" ")
    };
    let texts = (0..count).map(|_| text(&mut random)).collect();
    Corpus { name: "mixed", texts }
}

/// The generator SplitMix64, which is sufficient here and does not need a crate.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[(self.next() % items.len() as u64) as usize]
    }
}
