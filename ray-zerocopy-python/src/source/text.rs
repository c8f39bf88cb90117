//! Names, text and documentation of Rust in Python's source.

/// Words that Python keeps for itself.
const KEYWORDS: [&str; 35] = [
    "False", "None", "True", "and", "as", "assert", "async", "await", "break", "class", "continue", "def", "del",
    "elif", "else", "except", "finally", "for", "from", "global", "if", "import", "in", "is", "lambda", "nonlocal",
    "not", "or", "pass", "raise", "return", "try", "while", "with", "yield",
];

/// A name, as Python may have it: one that is a word of its own gets an underscore behind it, as PEP 8 has it.
pub(super) fn identifier(name: &str) -> String {
    // A parameter of this name would hide the pipeline.
    match KEYWORDS.contains(&name) || name == "self" || name == "cls" {
        true => format!("{name}_"),
        false => name.to_owned(),
    }
}

/// A text as a literal, on one line.
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

/// Documentation of Rust as Python's: its code blocks are for others and left out, those marked `python` are not fenced.
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
    // What was left out leaves two empty lines behind.
    lines.dedup_by(|line, before| line.trim().is_empty() && before.trim().is_empty());
    lines.join("\n").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::{documentation, identifier, literal};

    #[test]
    fn names_that_python_keeps_get_an_underscore() {
        assert_eq!(["lambda", "embed", "self"].map(identifier), ["lambda_", "embed", "self_"]);
    }

    #[test]
    fn text_stays_what_it_is() {
        assert_eq!(literal("a \"b\"\\\n\u{1}ü"), r#""a \"b\"\\\n\u0001ü""#);
    }

    #[test]
    fn only_python_is_left_of_code() {
        let doc = "Adds.\n\n```\nrust();\n```\n\n```python\n>>> 1 + 1\n2\n```\n\nEnd.";
        assert_eq!(documentation(doc), "Adds.\n\n>>> 1 + 1\n2\n\nEnd.");
    }
}
