//! `rzc top`: calls, queues, latency, batches, workers and memory of the programs that publish their status.
//!
//! | file | what |
//! | --- | --- |
//! | `rows` | the rows of the tables, from two states of the same programs |
//! | `screen` | draws them |
//! | `live` | the terminal: repeats that until a key ends it |

mod live;
mod rows;
mod screen;

use std::time::Duration;

use anyhow::Result;
use ray_zerocopy::observe::{Service, services};
use serde_json::{Value, json};

use self::rows::{CALL_COLUMNS, MEMORY_COLUMNS, View};
use crate::Outcome;
use crate::cli::Top;
use crate::output::{Output, one_line};
use crate::table::Table;

pub(crate) fn run(options: &Top, output: &mut Output) -> Result<Outcome> {
    if options.json {
        let all = services()?;
        let report = json!({ "services": all.iter().map(report).collect::<Vec<_>>() });
        output.json(&report, false)?;
    } else if options.once {
        once(&View::of(&services()?, None), output)?;
    } else {
        live::run(Duration::from_secs_f64(options.interval))?;
    }
    Ok(Outcome::Success)
}

/// Prints one state, with the calls since each program began to count.
fn once(view: &View, output: &mut Output) -> Result<()> {
    if view.is_empty() {
        return writeln!(output, "{}", rows::NOTHING);
    }
    if !view.calls.is_empty() {
        let mut table = Table::new(CALL_COLUMNS);
        view.calls.iter().for_each(|row| table.row(row.cells()));
        table.print("", output)?;
    }
    if !view.memory.is_empty() {
        writeln!(output)?;
        let mut table = Table::new(MEMORY_COLUMNS);
        view.memory.iter().for_each(|row| table.row(row.cells()));
        table.print("", output)?;
        writeln!(output, "MiB; {}", view.totals())?;
    }
    for problem in &view.problems {
        writeln!(output, "{}", one_line(problem))?;
    }
    Ok(())
}

fn report(service: &Service) -> Value {
    match &service.status {
        Ok(status) => json!({ "pid": service.pid, "status": status, "error": null }),
        Err(reason) => json!({ "pid": service.pid, "status": null, "error": reason }),
    }
}
