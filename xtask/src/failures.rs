//! What failed in the output of test programs: names and reasons, which the summary repeats.

/// Lines that are kept of each reason.
const LINES: usize = 12;

/// The tests that failed, each with the beginning of its output. Understands the output of Rust's test programs and of
/// pytest.
pub(crate) fn of(output: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = output.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
            let is_over = |line: &str| line.starts_with("---- ") || line == "failures:";
            let mut reason = Vec::new();
            while let Some(line) = lines.next_if(|line| !is_over(line)) {
                reason.push(line);
            }
            found.push([vec![name], shortened(&reason)].concat().join("\n    "));
        } else if line.starts_with("FAILED ") || line.starts_with("ERROR ") {
            found.push(line.to_owned());
        }
    }
    found
}

/// The first lines of a reason, without the frames of backtraces.
fn shortened<'a>(reason: &[&'a str]) -> Vec<&'a str> {
    let is_frame = |line: &str| {
        let line = line.trim_start();
        let number = line.split(':').next().unwrap_or_default();
        line.starts_with("at ") || (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let is_kept = |line: &&&str| !line.trim().is_empty() && **line != "stack backtrace:" && !is_frame(line);
    reason.iter().filter(is_kept).take(LINES).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::of;

    const OUTPUT: &str = "\
running 2 tests
test good ... ok
test bad::worse ... FAILED
test bad ... FAILED

failures:

---- bad::worse stdout ----

thread 'bad::worse' (12) panicked at tests/a.rs:3:9:
3 rows are missing
stack backtrace:
   0: __rustc::rust_begin_unwind
             at /rustc/5980/library/std/src/panicking.rs:689:5
note: Some details are omitted

---- bad stdout ----
Error: no file

failures:
    bad
    bad::worse

test result: FAILED. 1 passed; 2 failed
";

    #[test]
    fn reasons_of_rust_tests_are_found() {
        let worse = "bad::worse\n    thread 'bad::worse' (12) panicked at tests/a.rs:3:9:\n    3 rows are missing\n    note: \
                     Some details are omitted";
        assert_eq!(of(OUTPUT), [worse, "bad\n    Error: no file"]);
        assert_eq!(of("test good ... ok\n\ntest result: ok"), [""; 0]);
    }

    #[test]
    fn reasons_of_pytest_are_found() {
        let output =
            "....F\n=== short test summary info ===\nFAILED tests/a.py::b - assert 1 == 2\nERROR tests/c.py\n1 failed";
        assert_eq!(of(output), ["FAILED tests/a.py::b - assert 1 == 2", "ERROR tests/c.py"]);
    }
}
