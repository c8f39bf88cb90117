//! `rzc swap`: gives the programs that follow a name new weights.

use std::path::Path;

use anyhow::Result;
use ray_zerocopy::arena::ArenaFile;
use ray_zerocopy::error::ArenaError;
use ray_zerocopy::holder::{FollowerSwap, swap_followers};
use ray_zerocopy::{Arena, in_background};
use serde_json::json;

use crate::Outcome;
use crate::cli::Swap;
use crate::output::{Output, one_line};
use crate::progress::Bar;
use crate::table::{count, size};

pub(crate) fn run(options: &Swap, output: &mut Output) -> Result<Outcome> {
    let mut base = None;
    for file in &options.bases.files {
        base = Some(open(file, base.as_ref())?);
    }
    let arena = open(&options.file, base.as_ref())?;
    let answers = swap_followers(&options.name, &arena)?;
    let refused = answers.iter().filter(|answer| answer.outcome.is_err()).count();
    if options.json {
        output.json(&report(options, &arena, &answers), false)?;
    } else {
        let file = one_line(&options.file.display().to_string());
        writeln!(output, "{file}: id {}, {}", arena.id(), size(arena.size_bytes()))?;
        for FollowerSwap { pid, outcome, .. } in &answers {
            match outcome {
                Ok(done) => writeln!(output, "process {pid}: {}", one_line(done))?,
                Err(reason) => writeln!(output, "process {pid} keeps its weights: {}", one_line(reason))?,
            }
        }
        if refused > 0 {
            writeln!(output, "{refused} of {} keep their weights", count(answers.len(), "follower"))?;
        }
    }
    Ok(if refused > 0 { Outcome::Failed } else { Outcome::Success })
}

/// Finds or makes the arena of a file, which may be a variant of `base`. Programs find it by its content.
fn open(file: &Path, base: Option<&Arena>) -> Result<Arena> {
    if let (Err(ArenaError::NeedsBase { .. }), Some(base)) = (ArenaFile::open(file), base) {
        return Ok(Arena::shared_variant(file, base)?);
    }
    let bar = Bar::new(&file.display().to_string());
    // The programs that are to swap serve calls meanwhile.
    let arena = in_background(|| Arena::shared_file(file, |progress| bar.show(progress)));
    bar.done();
    Ok(arena?)
}

fn report(options: &Swap, arena: &Arena, answers: &[FollowerSwap]) -> serde_json::Value {
    let answer = |FollowerSwap { pid, outcome, .. }: &FollowerSwap| json!({ "pid": pid, "swapped": outcome.is_ok(), "text": outcome.as_ref().unwrap_or_else(|reason| reason) });
    json!({
        "name": options.name,
        "file": options.file,
        "id": arena.id().to_hex(),
        "bytes": arena.size_bytes(),
        "followers": answers.iter().map(answer).collect::<Vec<_>>(),
    })
}
