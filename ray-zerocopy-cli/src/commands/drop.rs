//! `rzc drop`: lets arenas go that a holder keeps.

use anyhow::{Result, bail};
use ray_zerocopy::arena::ArenaFile;
use ray_zerocopy::holder::{HeldArena, held};

use crate::Outcome;
use crate::cli::Drop;
use crate::output::{Output, print_error};
use crate::table::size;

pub(crate) fn run(options: &Drop, output: &mut Output) -> Result<Outcome> {
    let kept: Vec<_> = held()?.into_iter().filter(|arena| arena.is_kept).collect();
    let mut outcome = Outcome::Success;
    for named in &options.arenas {
        if let Err(error) = release(named, &kept, output) {
            print_error(&format!("{error:#}"));
            outcome = Outcome::Failed;
        }
    }
    Ok(outcome)
}

fn release(named: &str, kept: &[HeldArena], output: &mut Output) -> Result<()> {
    // A file is found by its content, since it may have been kept under another path.
    let id = ArenaFile::read_id(named);
    let is_meant = |arena: &&HeldArena| match id {
        Ok(id) => arena.id == id,
        Err(_) => arena.source == named || (!named.is_empty() && arena.id.to_hex().starts_with(named)),
    };
    let found: Vec<_> = kept.iter().filter(is_meant).collect();
    let Some(first) = found.first() else {
        bail!("no process keeps `{named}`; `rzc ps` lists what is kept");
    };
    if found.iter().any(|other| other.id != first.id) {
        bail!("several arenas have ids that begin with `{named}`; write more digits");
    }
    for arena in found {
        arena.release()?;
        writeln!(output, "{}: let go by process {}, id {}, {}", arena.source, arena.pid, arena.id, size(arena.bytes))?;
    }
    Ok(())
}
