//! Draws the screen of `rzc top`.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Style, Stylize};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Block, Cell, Paragraph, Row, Table};

use super::rows::{CALL_COLUMNS, MEMORY_COLUMNS, NOTHING, View};
use crate::output::one_line;

/// Draws the state of all programs. `scroll` is the number of rows above the screen.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View, scroll: usize) {
    let head = view.services.len() + view.problems.len();
    let head = u16::try_from(head.max(1)).unwrap_or(u16::MAX).min(frame.area().height / 3);
    let calls = u16::try_from(view.calls.len()).unwrap_or(u16::MAX).saturating_add(3);
    let rows = [Constraint::Length(head), Constraint::Max(calls), Constraint::Min(3), Constraint::Length(1)];
    let [top, calls, memory, foot] = Layout::vertical(rows).areas(frame.area());
    frame.render_widget(services(view), top);
    let cells: Vec<_> = view.calls.iter().skip(scroll).map(|row| row.cells().to_vec()).collect();
    table(frame, calls, "calls", &CALL_COLUMNS, &cells);
    let cells: Vec<_> = view.memory.iter().skip(scroll).map(|row| row.cells().to_vec()).collect();
    table(frame, memory, "memory, MiB", &MEMORY_COLUMNS, &cells);
    let keys = format!("{}   q quits, ↑ and ↓ scroll", view.totals());
    frame.render_widget(Paragraph::new(keys).dim(), foot);
}

fn services(view: &View) -> Paragraph<'_> {
    if view.is_empty() {
        return Paragraph::new(NOTHING);
    }
    let services = view.services.iter().map(|line| Line::from(one_line(line)).bold());
    let problems = view.problems.iter().map(|line| Line::from(one_line(line)).red());
    Paragraph::new(Text::from_iter(services.chain(problems)))
}

/// Draws a table whose columns are as wide as their cells. A heading that starts with `>` right-aligns its
/// column.
fn table(frame: &mut Frame<'_>, area: Rect, title: &str, headings: &[&str], rows: &[Vec<String>]) {
    let cell = |heading: &str, text: &str| {
        let alignment = if heading.starts_with('>') { Alignment::Right } else { Alignment::Left };
        Cell::from(Text::from(one_line(text)).alignment(alignment))
    };
    let width = |(column, heading): (usize, &&str)| {
        let cells = rows.iter().map(|row| one_line(&row[column]).chars().count());
        let widest = cells.chain([heading.trim_start_matches('>').len()]).max().unwrap_or_default();
        Constraint::Max(u16::try_from(widest).unwrap_or(u16::MAX))
    };
    let widths: Vec<_> = headings.iter().enumerate().map(width).collect();
    let header = Row::new(headings.iter().map(|heading| cell(heading, heading.trim_start_matches('>'))));
    let lines = rows.iter().map(|row| Row::new(headings.iter().zip(row).map(|(heading, text)| cell(heading, text))));
    let table = Table::new(lines, widths).header(header.style(Style::new().bold())).column_spacing(2);
    frame.render_widget(table.block(Block::bordered().title(title.to_owned())), area);
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::buffer::Buffer;
    use ratatui::layout::Rect;
    use ratatui::style::Modifier;

    use super::draw;
    use crate::commands::top::rows::tests::service;
    use crate::commands::top::rows::{Sample, View};

    fn screen(view: &View, width: u16, height: u16, scroll: usize) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, view, scroll)).unwrap();
        terminal.backend().to_string()
    }

    fn view() -> View {
        let (before, after) = ([service("speech", 1000)], [service("speech", 1400)]);
        View::of(&after, Some(Sample { services: &before, age: Duration::from_secs(2) }))
    }

    #[test]
    fn screen_has_calls_and_memory() {
        let screen = screen(&view(), 130, 20, 0);
        for text in [
            "speech: speech (pid 4711), up 1 min, 2 workers, 1 died, 1 restarted",
            "service  model   weights                  method  calls/s  errors/s  wait  run     p50     p99  rows/batch",
            "speech   MiniLm  current #2 abababababab  embed       200        20     3    2  700 µs  4.0 ms        16.0",
            "worker 1  4713    86.0     20.0  50.0   43.0",
            "all processes: 60.0 MiB private, 86.0 MiB saved by sharing   q quits",
        ] {
            assert!(screen.contains(text), "{text}\n{screen}");
        }
    }

    #[test]
    fn any_size_of_terminal_is_drawn() {
        for (width, height) in [(1, 1), (3, 2), (20, 5), (80, 24), (300, 100)] {
            screen(&view(), width, height, 0);
            screen(&View::default(), width, height, 7);
        }
        let scrolled = screen(&view(), 130, 20, 2);
        assert!(!scrolled.contains("worker 0") && scrolled.contains("worker 1"), "{scrolled}");
        assert!(screen(&View::default(), 130, 20, 0).contains("no program of this user publishes its status"));
    }

    /// The screen as a picture: a line of text for each row, with bold and red parts.
    fn svg(buffer: &Buffer) -> String {
        const WIDTH: f32 = 8.4;
        const HEIGHT: f32 = 18.0;
        let Rect { width, height, .. } = buffer.area;
        let (wide, high) = (f32::from(width) * WIDTH + 20.0, f32::from(height) * HEIGHT + 20.0);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {wide:.0} {high:.0}\" width=\"{wide:.0}\" \
             font-family=\"DejaVu Sans Mono, Menlo, Consolas, monospace\" font-size=\"14\">\n\
             <rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"#1c1f26\"/>\n"
        );
        for row in 0..height {
            let line: String = (0..width).map(|column| buffer[(column, row)].symbol()).collect();
            let y = f32::from(row) * HEIGHT + 24.0;
            let style = if buffer[(0, row)].modifier.contains(Modifier::BOLD) { " font-weight=\"bold\"" } else { "" };
            let text = line.trim_end().replace('&', "&amp;").replace('<', "&lt;");
            let length = text.chars().count() as f32 * WIDTH;
            if !text.is_empty() {
                svg += &format!(
                    "<text x=\"10\" y=\"{y:.0}\" fill=\"#d8dee9\" xml:space=\"preserve\" textLength=\"{length:.1}\"{style}>{text}</text>\n"
                );
            }
        }
        svg + "</svg>\n"
    }

    /// The picture in the book. `BLESS=1` writes it.
    #[test]
    fn picture_in_the_book_is_this_screen() {
        let mut terminal = Terminal::new(TestBackend::new(118, 13)).unwrap();
        terminal.draw(|frame| draw(frame, &view(), 0)).unwrap();
        let picture = svg(terminal.backend().buffer());
        let book = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("book");
        if !book.is_dir() {
            eprintln!("skipped: the published package has no book");
            return;
        }
        let file = book.join("src/images/top.svg");
        if std::env::var_os("BLESS").is_some() {
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, &picture).unwrap();
        }
        let known = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(known == picture, "run `BLESS=1 cargo test -p ray-zerocopy-cli --bin rzc picture_in_the_book`");
    }
}
