//! What keeps the book whole: contents, links, and the list of errors.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::CHAPTERS;

/// The book's folder: where cargo runs its tests.
fn root() -> PathBuf {
    std::env::current_dir().expect("tests run in a folder")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Targets of `[text](target)`.
fn links(text: &str) -> Vec<&str> {
    text.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect()
}

/// A heading as mdBook and rustdoc make it an anchor.
fn anchor(heading: &str) -> String {
    let kept =
        heading.trim_start_matches('#').trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

#[test]
fn the_summary_lists_every_chapter_and_each_is_tested() {
    let found: BTreeSet<_> = fs::read_dir(root().join("src"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "SUMMARY.md" && name != "images")
        .collect();
    let summary = read("src/SUMMARY.md");
    let listed: BTreeSet<_> = links(&summary).into_iter().map(str::to_owned).collect();
    let tested: BTreeSet<_> = CHAPTERS.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(listed, found, "SUMMARY.md (left) against the files in src/");
    assert_eq!(tested, found, "lib.rs (left) against the files in src/");
}

#[test]
fn links_lead_somewhere() {
    for chapter in CHAPTERS {
        let text = read(format!("src/{chapter}"));
        for link in links(&text).into_iter().filter(|link| !link.starts_with("https://")) {
            if link.starts_with("images/") {
                assert!(root().join("src").join(link).is_file(), "{chapter}: there is no picture `{link}`");
                continue;
            }
            let (file, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { (*chapter).to_owned() } else { file.to_owned() };
            let target = read(format!("src/{target}"));
            let headings: Vec<_> = target.lines().filter(|line| line.starts_with('#')).map(anchor).collect();
            assert!(
                fragment.is_empty() || headings.contains(&fragment.to_owned()),
                "{chapter}: `{link}`: {headings:?}"
            );
        }
    }
}

#[test]
fn every_example_that_is_named_exists() {
    for chapter in CHAPTERS {
        for rest in read(format!("src/{chapter}")).split("--example ").skip(1) {
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let files = [
                "examples/examples/NAME.rs",
                "examples/examples/NAME/main.rs",
                "ray-zerocopy-kernels/examples/NAME.rs",
                "ray-zerocopy-python/examples/NAME.rs",
            ];
            let paths = files.map(|file| format!("../{}", file.replace("NAME", &name)));
            assert!(paths.iter().any(|path| root().join(path).exists()), "{chapter}: there is no example `{name}`");
        }
    }
}

#[test]
fn every_cause_of_an_error_is_in_the_book() {
    let book = read("src/errors.md");
    let mut files: Vec<_> = fs::read_dir(root().join("../ray-zerocopy/src/error"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "mod.rs")
        .collect();
    files.sort();
    assert!(files.len() > 10, "one file for each operation: {files:?}");
    for file in files {
        let source = read(format!("../ray-zerocopy/src/error/{file}"));
        let mut seen = 0;
        for (name, body) in source.split("pub enum ").skip(1).filter_map(|rest| rest.split_once(" {\n")) {
            let body = body.split("\n}").next().unwrap();
            for line in body.lines().filter(|line| line.starts_with("    ") && line.as_bytes()[4].is_ascii_uppercase())
            {
                let variant: String = line.trim().chars().take_while(|c| c.is_alphanumeric()).collect();
                assert!(
                    book.contains(&format!("`{name}::{variant}`")),
                    "`{name}::{variant}` of {file} is not in errors.md"
                );
                seen += 1;
            }
        }
        assert!(seen > 0, "no error was found in {file}");
    }
}

/// Text without what differs from case to case: `code`.
fn pattern(text: &str) -> String {
    let parts: Vec<_> = text.split('`').collect();
    parts.iter().enumerate().map(|(at, part)| if at % 2 == 0 { *part } else { "``" }).collect()
}

#[test]
fn every_diagnostic_of_the_macros_is_in_the_book() {
    let book: Vec<_> = read("src/errors.md").lines().map(pattern).collect();
    // What rustc says in its own words is in the book in ours.
    let of_rustc = |message: &str| {
        [
            "the trait bound",
            "mismatched types",
            "no method named",
            "the name `",
            "conflicting",
            "cannot define",
            "this function",
        ]
        .iter()
        .any(|start| message.starts_with(start))
    };
    let mut seen = 0;
    for entry in fs::read_dir(root().join("../tests/ui")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "stderr") {
            continue;
        }
        for line in read(&path).lines().filter(|line| line.starts_with("error")) {
            let Some((_, message)) = line.split_once(": ") else { continue };
            let wanted = pattern(message);
            let known = of_rustc(message) || book.iter().any(|line| line.contains(&wanted));
            assert!(known, "`{message}` of {} is not in errors.md", path.display());
            seen += 1;
        }
    }
    assert!(seen > 50, "only {seen} diagnostics were found");
}

#[test]
fn the_book_does_not_name_this_machine() {
    for chapter in CHAPTERS {
        let text = read(format!("src/{chapter}"));
        for word in ["/home/", "/tmp/", &root().to_string_lossy()] {
            assert!(!text.contains(word), "{chapter}: {word}");
        }
    }
}
