//! Status reports: text that a process gives to other programs of this user which ask for it.

use std::path::Path;
use std::time::Duration;

use super::client::ask_all_within;
use super::endpoint::{Answer, Request, endpoint};
use crate::error::holder::HolderError;

/// Time that a process may take for its report. One that is stopped does not hold the others up for long.
const PATIENCE: Duration = Duration::from_secs(2);

/// Makes the report of this process, or says why there is none. `None` if it has no report for others.
pub(super) type MakeReport = fn() -> Option<Result<String, String>>;

/// A process, and its report or why it cannot be read.
pub(crate) type ProcessReportText = (u32, Result<String, String>);

/// Answers programs that ask for the report of this process.
pub(crate) fn answer_status(report: MakeReport) -> Result<(), HolderError> {
    let endpoint = endpoint();
    endpoint.listening()?;
    *endpoint.report.lock() = Some(report);
    Ok(())
}

/// Asks all processes of this user. Returns those that have a report.
pub(crate) fn ask_for_status() -> Result<Vec<ProcessReportText>, HolderError> {
    let mut reports = Vec::new();
    for (socket, answer) in ask_all_within(&Request::Status, PATIENCE)? {
        let Some(pid) = pid(&socket) else { continue };
        match answer {
            Ok(Answer::Status(Some(report))) => reports.push((pid, report)),
            // It publishes nothing. An older program does not know the request, and hangs up.
            Ok(_) => {}
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                reports.push((pid, Err(format!("it has not answered within {PATIENCE:?}"))));
            }
            // It has ended meanwhile.
            Err(_) => {}
        }
    }
    Ok(reports)
}

/// The process of an endpoint, which its name begins with.
fn pid(socket: &Path) -> Option<u32> {
    socket.file_name()?.to_str()?.split_once('-')?.0.parse().ok()
}
