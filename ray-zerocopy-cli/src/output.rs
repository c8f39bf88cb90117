//! Standard output, which may be a pipe that its reader closes, and errors, which are one line.

use std::fmt::Arguments;
use std::io::{self, BufWriter, ErrorKind, IsTerminal, StdoutLock, Write};

use anyhow::Result;

/// Where results go.
pub(crate) struct Output(BufWriter<StdoutLock<'static>>);

impl Output {
    pub(crate) fn new() -> Self {
        Self(BufWriter::new(io::stdout().lock()))
    }

    /// For `write!` and `writeln!`.
    pub(crate) fn write_fmt(&mut self, text: Arguments<'_>) -> Result<()> {
        Ok(self.0.write_fmt(text)?)
    }

    /// For those who write for themselves.
    pub(crate) fn writer(&mut self) -> &mut dyn Write {
        &mut self.0
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.0.write_all(bytes)?)
    }

    /// An object for programs, on one line if there may be more of them.
    pub(crate) fn json(&mut self, value: &serde_json::Value, one_line: bool) -> Result<()> {
        match one_line {
            true => writeln!(self, "{value}"),
            false => writeln!(self, "{value:#}"),
        }
    }

    pub(crate) fn finish(&mut self) -> Result<()> {
        Ok(self.0.flush()?)
    }

    /// An empty screen, if there is one: else text goes on below.
    pub(crate) fn clear(&mut self) -> Result<()> {
        match io::stdout().is_terminal() {
            true => write!(self, "\x1b[H\x1b[2J"),
            false => writeln!(self),
        }
    }
}

/// Whether the reader of standard output has gone.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// Says what went wrong, on one line.
pub(crate) fn complain(error: &str) {
    let line = one_line(error);
    // Nobody is left to tell if this fails.
    drop(writeln!(io::stderr(), "error: {line}"));
}

/// Text without line breaks, nor anything else that would move a terminal's cursor.
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
