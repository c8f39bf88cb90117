//! Replaces files atomically, and removes incomplete ones when a signal ends the program.

use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::thread;

use anyhow::{Context, Result};
use ray_zerocopy::__private::os::{remove_temporaries, replace};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// Writes a file that gets its name, and replaces an existing file, when it is complete. A pipe or
/// a device is written directly.
pub(crate) fn write(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    if fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        let mut out = BufWriter::new(OpenOptions::new().write(true).open(path)?);
        write(&mut out)?;
        return Ok(out.flush()?);
    }
    remove_incomplete_on_signals()?;
    let written = |file: &fs::File| {
        let mut out = BufWriter::new(file);
        write(&mut out)?;
        Ok(out.flush()?)
    };
    replace(path, written, anyhow::Error::from)
}

/// Installs handlers that remove incomplete files before a signal ends the program.
///
/// Most file systems support unnamed files (`O_TMPFILE`), which the kernel removes. The handlers
/// are for the others.
pub(crate) fn remove_incomplete_on_signals() -> Result<()> {
    let start = || -> io::Result<()> {
        let mut signals = Signals::new(not_ignored(&[SIGHUP, SIGINT, SIGQUIT, SIGTERM]))?;
        thread::Builder::new().name("rzc signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                remove_temporaries();
                // Ends the program as the signal would have.
                drop(emulate_default_handler(signal));
            }
        })?;
        Ok(())
    };
    start().context("signals cannot be handled")
}

/// Returns those of the signals that are not ignored since the program was started, as under `nohup`.
pub(crate) fn not_ignored(signals: &[i32]) -> Vec<i32> {
    let ignored = ignored();
    signals.iter().copied().filter(|signal| ignored & 1 << (signal - 1) == 0).collect()
}

/// Returns the signals that are ignored since the program was started, as a bit mask.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}
