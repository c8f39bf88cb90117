//! `rzc ps`: shows which processes map which arena, and which hold one for others.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use ray_zerocopy::holder::{Follower, HeldArena, followers, held};
use ray_zerocopy::report::{MappedArena, MappingProcess, ProcessRole, Scan, scan};
use serde_json::{Value, json};

use crate::Outcome;
use crate::cli::Ps;
use crate::output::{Output, one_line, print_error};
use crate::table::{Table, count, mib, size};

pub(crate) fn run(options: &Ps, output: &mut Output) -> Result<Outcome> {
    let Some(seconds) = options.watch else {
        print(options, output)?;
        return Ok(Outcome::Success);
    };
    for round in 0_u64.. {
        if !options.json && round > 0 {
            output.clear()?;
        }
        print(options, output)?;
        output.finish()?;
        sleep(Duration::from_secs_f64(seconds));
    }
    Ok(Outcome::Success)
}

fn print(options: &Ps, output: &mut Output) -> Result<()> {
    let scan = scan()?;
    // The processes are shown in any case.
    let held = held().unwrap_or_else(|error| {
        print_error(&error.to_string());
        Vec::new()
    });
    // The same error as above, if there is one.
    let followers = followers().unwrap_or_default();
    if options.json {
        return output.json(&report(&scan, &held, &followers), options.watch.is_some());
    }
    show(&scan, output)?;
    show_held(&held, output)?;
    show_followers(&followers, output)
}

/// Shows the names that processes of this user follow.
fn show_followers(followers: &[Follower], output: &mut Output) -> Result<()> {
    if followers.is_empty() {
        return Ok(());
    }
    writeln!(output, "\nfollowing a name, for `rzc swap`:")?;
    let mut table = Table::new(["name", ">pid", "id"]);
    for Follower { name, pid, arena, .. } in followers {
        table.row([one_line(name), pid.to_string(), arena.map_or_else(String::new, |id| id.to_string())]);
    }
    table.print("  ", output)
}

/// Shows the arenas that processes of this user find by content.
fn show_held(held: &[HeldArena], output: &mut Output) -> Result<()> {
    if held.is_empty() {
        return Ok(());
    }
    writeln!(output, "\nfound by content:")?;
    let mut table = Table::new(["source", "id", ">size", ">pid", "held"]);
    for arena in held {
        let how = if arena.is_kept { "kept for others" } else { "in use" };
        let source = one_line(&arena.source);
        table.row([source, arena.id.to_string(), size(arena.bytes), arena.pid.to_string(), how.to_owned()]);
    }
    table.print("  ", output)
}

fn show(scan: &Scan, output: &mut Output) -> Result<()> {
    if scan.arenas.is_empty() {
        writeln!(output, "no process that this user may inspect maps an arena")?;
    }
    for arena in &scan.arenas {
        title(arena, output)?;
        let header = ["process", ">pid", "program", ">shared", ">private", ">PSS", ">saved"];
        let row = |process: &MappingProcess| {
            let MappingProcess { pid, role, program, shared, private, pss, .. } = process;
            let [shared, private, pss, saved] = [*shared, *private, *pss, process.saved()].map(mib);
            [role.to_string(), pid.to_string(), program.clone(), shared, private, pss, saved]
        };
        // A further column if a process uses a GPU.
        if arena.processes.iter().any(|process| process.device_used.is_some()) {
            let [process, pid, program, shared, private, pss, saved] = header;
            let mut table = Table::new([process, pid, program, shared, private, pss, saved, ">GPU"]);
            for process in &arena.processes {
                let [role, pid, program, shared, private, pss, saved] = row(process);
                let gpu = process.device_used.map_or_else(String::new, mib);
                table.row([role, pid, program, shared, private, pss, saved, gpu]);
            }
            table.print("  ", output)?;
        } else {
            let mut table = Table::new(header);
            for process in &arena.processes {
                table.row(row(process));
            }
            table.print("  ", output)?;
        }
        writeln!(output)?;
    }
    if !scan.arenas.is_empty() {
        let arenas = count(scan.arenas.len(), "arena");
        let [private, pss, saved] = [scan.private(), scan.pss(), scan.saved()].map(size);
        writeln!(output, "{arenas}, all processes: {private} private, {pss} PSS, {saved} saved")?;
        writeln!(
            output,
            "MiB, from /proc/<pid>/smaps: shared = the arena's Rss, private = Anonymous, saved = the arena's Rss - Pss"
        )?;
    }
    if scan.hidden > 0 {
        writeln!(output, "processes that this user may not inspect: {}", scan.hidden)?;
    }
    Ok(())
}

fn title(arena: &MappedArena, output: &mut Output) -> Result<()> {
    let place = match &arena.path {
        Some(path) => path.display().to_string(),
        None => "sealed memory".to_owned(),
    };
    let key = format!("arena {}:{}", arena.device, arena.inode);
    match &arena.contents {
        Ok(file) => {
            let pipeline = if file.pipeline().is_empty() { "packed checkpoint" } else { file.pipeline() };
            write!(output, "{key}  {pipeline}  id {}  {}, {place}", file.id(), size(file.size_bytes()))?;
            // What it borrows is counted as memory of the base.
            for (id, bytes) in file.bases() {
                write!(output, ", {} borrowed from {id}", size(bytes))?;
            }
            writeln!(output)
        }
        Err(reason) => writeln!(output, "{key}  {place}; cannot be read: {reason}"),
    }
}

fn report(scan: &Scan, held: &[HeldArena], followers: &[Follower]) -> Value {
    let followers = followers.iter().map(
        |follower| json!({ "name": follower.name, "pid": follower.pid, "id": follower.arena.map(|id| id.to_hex()) }),
    );
    let held = held.iter().map(|arena| {
        json!({
            "source": arena.source,
            "id": arena.id.to_hex(),
            "pipeline": arena.pipeline,
            "bytes": arena.bytes,
            "pid": arena.pid,
            "kept": arena.is_kept,
        })
    });
    let arenas = scan.arenas.iter().map(|arena| {
        let file = arena.contents.as_ref().ok();
        json!({
            "device": arena.device,
            "inode": arena.inode,
            "path": arena.path,
            "sealed": arena.path.is_none(),
            "pipeline": file.map(|file| file.pipeline()).filter(|pipeline| !pipeline.is_empty()),
            "id": file.map(|file| file.id().to_hex()),
            "fingerprint": file.map(|file| file.fingerprint()),
            "bytes": file.map(|file| file.size_bytes()),
            "bases": file.map_or_else(Vec::new, |file| {
                file.bases().map(|(id, bytes)| json!({ "id": id.to_hex(), "bytes": bytes })).collect()
            }),
            "error": arena.contents.as_ref().err(),
            "saved": arena.saved(),
            "processes": arena.processes.iter().map(process).collect::<Vec<_>>(),
        })
    });
    json!({
        "arenas": arenas.collect::<Vec<_>>(),
        "held": held.collect::<Vec<_>>(),
        "followers": followers.collect::<Vec<_>>(),
        "totals": { "private": scan.private(), "pss": scan.pss(), "saved": scan.saved() },
        "hidden_processes": scan.hidden,
    })
}

fn process(process: &MappingProcess) -> Value {
    let (role, worker) = match process.role {
        ProcessRole::Owner => ("owner", None),
        ProcessRole::Worker(index) => ("worker", Some(index)),
        _ => ("other", None),
    };
    let mut row = json!({
        "pid": process.pid,
        "role": role,
        "worker": worker,
        "program": process.program,
        "shared": process.shared,
        "share": process.share,
        "private": process.private,
        "pss": process.pss,
        "saved": process.saved(),
    });
    if let Some(bytes) = process.device_used {
        row["gpu"] = json!(bytes);
    }
    row
}
