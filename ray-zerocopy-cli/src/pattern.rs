//! Glob patterns for paths of tensors. They are not regular expressions, because paths contain `.`
//! and `[`.

/// A pattern: `*` matches any text, `?` any one character.
pub(crate) struct Pattern(Vec<char>);

impl Pattern {
    /// Creates a pattern. Text without `*` and `?` matches anywhere in a path.
    pub(crate) fn new(text: &str) -> Self {
        if text.contains(['*', '?']) {
            Self(text.chars().collect())
        } else {
            Self(format!("*{text}*").chars().collect())
        }
    }

    pub(crate) fn matches(&self, text: &str) -> bool {
        let (pattern, text): (_, Vec<char>) = (&self.0, text.chars().collect());
        let (mut at, mut place) = (0, 0);
        // The last star and the end of its match. Only the last star is ever extended.
        let mut star = None;
        while place < text.len() {
            match pattern.get(at) {
                Some('*') => {
                    star = Some((at, place));
                    at += 1;
                }
                Some(&c) if c == '?' || c == text[place] => {
                    at += 1;
                    place += 1;
                }
                _ => {
                    let Some((star_at, taken)) = star else { return false };
                    star = Some((star_at, taken + 1));
                    at = star_at + 1;
                    place = taken + 1;
                }
            }
        }
        pattern[at..].iter().all(|&c| c == '*')
    }
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn stars_and_marks() {
        let is = |pattern: &str, text: &str| Pattern::new(pattern).matches(text);
        assert!(is("weight", "heads[\"fr\"].2.weight") && is("[\"fr\"]", "heads[\"fr\"].2.weight"));
        assert!(is("*.weight", "a.b.weight") && !is("*.weight", "a.weight.b"));
        assert!(is("a.?.b", "a.1.b") && !is("a.?.b", "a.11.b") && !is("a.?", "a."));
        assert!(is("*a*ab", "aab") && is("*ab*b", "abab") && !is("*ab*abc", "abab"));
        assert!(is("", "") && is("*", "") && is("", "x") && is("**", "x") && !is("?", ""));
        assert!(is("ü?", "üé"));
    }

    #[test]
    fn many_stars_take_no_time() {
        assert!(!Pattern::new(&"*a".repeat(40)).matches(&"a".repeat(39)));
        assert!(!Pattern::new(&format!("{}b", "a*".repeat(30))).matches(&"a".repeat(10_000)));
    }
}
