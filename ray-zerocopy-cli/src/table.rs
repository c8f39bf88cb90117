//! Formats text tables, sizes and counts.

use anyhow::Result;

use crate::output::{Output, one_line};

/// Rows of text, aligned in columns.
pub(crate) struct Table {
    /// Whether each column is right-aligned, as numbers are.
    right: Vec<bool>,
    rows: Vec<Option<Vec<String>>>,
}

impl Table {
    /// Creates a table. A heading that starts with `>` right-aligns its column.
    pub(crate) fn new<const N: usize>(headings: [&str; N]) -> Self {
        let right = headings.iter().map(|heading| heading.starts_with('>')).collect();
        let mut table = Self { right, rows: Vec::new() };
        table.row(headings.map(|heading| heading.trim_start_matches('>').to_owned()));
        table.rule();
        table
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        // Names from files may contain control characters.
        self.rows.push(Some(cells.iter().map(|cell| one_line(cell)).collect()));
    }

    pub(crate) fn rule(&mut self) {
        self.rows.push(None);
    }

    pub(crate) fn print(&self, indent: &str, output: &mut Output) -> Result<()> {
        for line in self.lines() {
            writeln!(output, "{indent}{line}")?;
        }
        Ok(())
    }

    fn lines(&self) -> impl Iterator<Item = String> {
        let mut widths = vec![0; self.right.len()];
        for row in self.rows.iter().flatten() {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        self.rows.iter().map(move |row| {
            let cells = widths.iter().enumerate().map(|(at, &width)| match row {
                None => "-".repeat(width),
                Some(row) if self.right[at] => format!("{:>width$}", row[at]),
                Some(row) => format!("{:<width$}", row[at]),
            });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        })
    }
}

/// Formats a number of bytes: `86.1 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut size = bytes as f64 / 1024.0;
    let mut unit = 0;
    // A value that would be rounded to 1024.0 is written as 1.0 of the next unit.
    while size >= 1023.95 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{size:.1} {}", UNITS[unit])
}

/// Formats a number of bytes in MiB without the unit, for columns.
pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}

/// Formats a count with its noun: `1 tensor`, `2 tensors`.
pub(crate) fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::{Table, count, size};

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(["path", ">size"]);
        table.row(["größe\n".to_owned(), "1".to_owned()]);
        table.row(["a".to_owned(), "1234567".to_owned()]);
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines, ["path      size", "-----  -------", "größe        1", "a      1234567"]);
    }

    #[test]
    fn sizes_are_short() {
        let sizes = [0, 1023, 1024, 1536, 1_048_575, 90_868_376, u64::MAX].map(size);
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "86.7 MiB", "16384.0 PiB"]);
        assert_eq!([count(1, "tensor"), count(0, "tensor")], ["1 tensor", "0 tensors"]);
    }
}
