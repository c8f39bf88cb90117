//! Converts Rust identifiers, text and documentation to Python source.

/// Reserved words of Python.
const KEYWORDS: [&str; 35] = [
    "False", "None", "True", "and", "as", "assert", "async", "await", "break", "class", "continue", "def", "del",
    "elif", "else", "except", "finally", "for", "from", "global", "if", "import", "in", "is", "lambda", "nonlocal",
    "not", "or", "pass", "raise", "return", "try", "while", "with", "yield",
];

/// Converts a name to a Python identifier. A reserved word gets a trailing underscore, as PEP 8
/// recommends.
pub(super) fn identifier(name: &str) -> String {
    // A parameter called `self` or `cls` would shadow the pipeline.
    if KEYWORDS.contains(&name) || name == "self" || name == "cls" { format!("{name}_") } else { name.to_owned() }
}

/// Formats text as a string literal on one line.
pub(super) fn literal(text: &str) -> String {
    let mut literal = String::from("\"");
    for character in text.chars() {
        match character {
            '\\' => literal += "\\\\",
            '"' => literal += "\\\"",
            '\n' => literal += "\\n",
            character if character.is_control() => literal += &format!("\\u{:04x}", u32::from(character)),
            character => literal.push(character),
        }
    }
    literal + "\""
}

/// Converts Rust documentation to a docstring: Rust code blocks are removed, and blocks marked
/// `python` lose their fences.
pub(super) fn documentation(doc: &str) -> String {
    let mut lines: Vec<&str> = Vec::new();
    let mut block = None;
    for line in doc.lines() {
        let fence = line.trim_start().strip_prefix("```");
        match (fence, block) {
            (Some(language), None) => {
                let words: Vec<&str> = language.split(',').map(str::trim).collect();
                block = Some(["python", "pycon"].iter().any(|python| words.contains(python)));
            }
            (Some(_), Some(_)) => block = None,
            (None, Some(false)) => {}
            (None, _) => lines.push(line),
        }
    }
    // A removed block leaves two consecutive empty lines.
    lines.dedup_by(|line, before| line.trim().is_empty() && before.trim().is_empty());
    lines.join("\n").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::{documentation, identifier, literal};

    #[test]
    fn reserved_words_get_an_underscore() {
        assert_eq!(["lambda", "embed", "self"].map(identifier), ["lambda_", "embed", "self_"]);
    }

    #[test]
    fn literals_are_escaped() {
        assert_eq!(literal("a \"b\"\\\n\u{1}ü"), r#""a \"b\"\\\n\u0001ü""#);
    }

    #[test]
    fn only_python_code_blocks_are_kept() {
        let doc = "Adds.\n\n```\nrust();\n```\n\n```python\n>>> 1 + 1\n2\n```\n\nEnd.";
        assert_eq!(documentation(doc), "Adds.\n\n>>> 1 + 1\n2\n\nEnd.");
    }
}
