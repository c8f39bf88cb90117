//! The terminal of `rzc top`: draws the state again and again, until a key ends it.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ray_zerocopy::observe::{Service, services};

use super::rows::{Sample, View};
use super::screen::draw;

/// What a key asks for.
enum Command {
    Quit,
    Scroll(isize),
    Redraw,
}

/// Shows the state until `q`, Escape or Ctrl-C. The terminal is as before then.
pub(super) fn run(interval: Duration) -> Result<()> {
    // Its errors are shown before the screen is taken.
    let first = services()?;
    if !std::io::stdout().is_terminal() {
        bail!("standard output is not a terminal; `--once` prints a table");
    }
    let mut terminal = ratatui::try_init()?;
    let result = repeat(&mut terminal, interval, first);
    ratatui::try_restore()?;
    result
}

fn repeat(terminal: &mut DefaultTerminal, interval: Duration, first: Vec<Service>) -> Result<()> {
    let mut view = View::of(&first, None);
    let (mut before, mut at, mut scroll) = (first, Instant::now(), 0_usize);
    loop {
        let lines = view.calls.len().max(view.memory.len());
        scroll = scroll.min(lines.saturating_sub(1));
        terminal.draw(|frame| draw(frame, &view, scroll))?;
        match next(at + interval)? {
            Some(Command::Quit) => return Ok(()),
            Some(Command::Scroll(rows)) => scroll = scroll.saturating_add_signed(rows),
            Some(Command::Redraw) => {}
            None => {
                let now = services()?;
                let age = at.elapsed();
                view = View::of(&now, Some(Sample { services: &before, age }));
                (before, at) = (now, Instant::now());
            }
        }
    }
}

/// Waits for a key that means something. Returns `None` at the given time.
fn next(until: Instant) -> Result<Option<Command>> {
    loop {
        if !event::poll(until.saturating_duration_since(Instant::now()))? {
            return Ok(None);
        }
        let command = match event::read()? {
            Event::Key(key) if key.kind == KeyEventKind::Press => match key.code {
                KeyCode::Char('q') | KeyCode::Esc => Command::Quit,
                KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Command::Quit,
                KeyCode::Down | KeyCode::Char('j') => Command::Scroll(1),
                KeyCode::Up | KeyCode::Char('k') => Command::Scroll(-1),
                KeyCode::PageDown => Command::Scroll(10),
                KeyCode::PageUp => Command::Scroll(-10),
                _ => continue,
            },
            Event::Resize(..) => Command::Redraw,
            _ => continue,
        };
        return Ok(Some(command));
    }
}
