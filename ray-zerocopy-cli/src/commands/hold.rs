//! `rzc hold`: keeps arenas in memory for other programs.

use std::path::Path;
use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, bail};
use ray_zerocopy::Arena;
use ray_zerocopy::arena::ArenaFile;
use ray_zerocopy::error::ArenaError;
use ray_zerocopy::holder::Holder;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::Outcome;
use crate::cli::Hold;
use crate::files::not_ignored;
use crate::output::{Output, one_line, print_error};
use crate::progress::Bar;
use crate::table::size;

pub(crate) fn run(options: &Hold, output: &mut Output) -> Result<Outcome> {
    let builder = Holder::builder().evict(options.evict);
    let holder = options.limit.into_iter().fold(builder, |builder, limit| builder.limit(limit)).build();
    let mut signals = Signals::new(not_ignored(&[SIGHUP, SIGINT, SIGTERM])).context("signals cannot be handled")?;
    let is_complete = Arc::new(AtomicBool::new(false));
    let complete = Arc::clone(&is_complete);
    let wait = move || {
        signals.forever().next();
        // Removes the files of this process from the user's folder, also while it seals an arena.
        exit(if is_complete.load(Ordering::Acquire) { 0 } else { 2 })
    };
    let thread =
        thread::Builder::new().name("rzc signals".to_owned()).spawn(wait).context("signals cannot be handled")?;
    let resumed = holder.resume()?;
    for arena in &resumed {
        writeln!(output, "kept by systemd, id {}, {}", arena.id(), size(arena.size_bytes()))?;
    }
    let is_service = !resumed.is_empty() || std::env::var_os("LISTEN_FDS").is_some();
    // The holder keeps them until they are dropped.
    drop(resumed);
    if options.files.is_empty() && !is_service {
        bail!("there is nothing to keep; name files, as in `rzc hold model.bpk`");
    }
    let mut base = None;
    for file in &options.bases {
        base = Some(keep(&holder, file, base.as_ref(), output)?);
        output.finish()?;
    }
    let mut kept = 0;
    for file in &options.files {
        match keep(&holder, file, base.as_ref(), output).map(drop) {
            Ok(()) => kept += 1,
            Err(error) => print_error(&format!("{error:#}")),
        }
        output.finish()?;
    }
    if kept == 0 && !is_service {
        return Ok(Outcome::Failed);
    }
    holder.ready()?;
    complete.store(kept == options.files.len(), Ordering::Release);
    // It ends the program.
    let _never = thread.join();
    Ok(Outcome::Success)
}

/// Keeps a saved arena, or a variant of `base`.
fn keep(holder: &Holder, file: &Path, base: Option<&Arena>, output: &mut Output) -> Result<Arena> {
    let bar = Bar::new(&file.display().to_string());
    let arena = match (ArenaFile::open(file), base) {
        (Err(ArenaError::NeedsBase { .. }), Some(base)) => holder.keep_variant(file, base),
        _ => holder.keep(file, |progress| bar.show(progress)),
    };
    bar.done();
    let arena = arena?;
    let name = one_line(&file.display().to_string());
    writeln!(output, "{name}: kept, id {}, {}", arena.id(), size(arena.own_bytes()))?;
    Ok(arena)
}
