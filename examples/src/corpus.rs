//! A small collection of factual sentences on a dozen topics, written for these examples.

/// Returns the sentences in the order of the file.
pub fn sentences() -> Vec<String> {
    include_str!("../data/corpus.txt").lines().filter(|line| !line.is_empty()).map(str::to_string).collect()
}
