//! Standard output, whose reader may close it early, and error messages of one line.

use std::fmt::Arguments;
use std::io::{self, BufWriter, ErrorKind, IsTerminal, StdoutLock, Write};

use anyhow::Result;

/// Buffered standard output.
pub(crate) struct Output(BufWriter<StdoutLock<'static>>);

impl Output {
    pub(crate) fn new() -> Self {
        Self(BufWriter::new(io::stdout().lock()))
    }

    /// Supports `write!` and `writeln!`.
    pub(crate) fn write_fmt(&mut self, text: Arguments<'_>) -> Result<()> {
        Ok(self.0.write_fmt(text)?)
    }

    /// Returns a writer for libraries that write their own output.
    pub(crate) fn writer(&mut self) -> &mut dyn Write {
        &mut self.0
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.0.write_all(bytes)?)
    }

    /// Prints a JSON object, on one line if more may follow.
    pub(crate) fn json(&mut self, value: &serde_json::Value, one_line: bool) -> Result<()> {
        if one_line { writeln!(self, "{value}") } else { writeln!(self, "{value:#}") }
    }

    pub(crate) fn finish(&mut self) -> Result<()> {
        Ok(self.0.flush()?)
    }

    /// Clears the terminal; other outputs get an empty line.
    pub(crate) fn clear(&mut self) -> Result<()> {
        if io::stdout().is_terminal() { write!(self, "\x1b[H\x1b[2J") } else { writeln!(self) }
    }
}

/// Returns whether the reader of standard output has closed it.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// Prints an error on one line.
pub(crate) fn print_error(error: &str) {
    let line = one_line(error);
    // A failure to write to standard error cannot be reported.
    writeln!(io::stderr(), "error: {line}").ok();
}

/// Removes line breaks and other control characters, which could move a terminal's cursor.
pub(crate) fn one_line(text: &str) -> String {
    let visible: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    visible.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn an_error_is_one_line() {
        assert_eq!(one_line("regex:\n    a(\n     ^\r\x1b[2Jend"), "regex: a( ^ [2Jend");
    }
}
