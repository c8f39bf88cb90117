//! Files that appear when they are complete, and signals that leave none behind that is not.

use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::thread;

use anyhow::{Context, Result};
use ray_zerocopy::__private::os::{remove_temporaries, replace};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// Writes a file that appears when it is complete, and then takes the place of one that is there. A pipe or a device gets the
/// bytes as they come.
pub(crate) fn write(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    if fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        let mut out = BufWriter::new(OpenOptions::new().write(true).open(path)?);
        write(&mut out)?;
        return Ok(out.flush()?);
    }
    leave_nothing_behind()?;
    let written = |file: &fs::File| {
        let mut out = BufWriter::new(file);
        write(&mut out)?;
        Ok(out.flush()?)
    };
    replace(path, written, anyhow::Error::from)
}

/// From here on a signal that ends this program removes files that are not complete first.
///
/// Most need no removing, because they have no name until they are complete: this is for file systems that cannot do that.
pub(crate) fn leave_nothing_behind() -> Result<()> {
    let ignored = ignored();
    // What is ignored, as under `nohup`, stays so.
    let wanted = [SIGHUP, SIGINT, SIGQUIT, SIGTERM].into_iter().filter(|signal| ignored & 1 << (signal - 1) == 0);
    let start = || -> io::Result<()> {
        let mut signals = Signals::new(wanted)?;
        thread::Builder::new().name("rzc signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                remove_temporaries();
                // Ends the program, as the signal would have.
                drop(emulate_default_handler(signal));
            }
        })?;
        Ok(())
    };
    start().context("signals cannot be handled")
}

/// The signals that this program was started to ignore, a bit for each.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}
