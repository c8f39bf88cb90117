//! The results, as text and as JSON.

use std::borrow::Cow;
use std::fmt;

use ray_zerocopy::report::{ProcessReport, Report};
use serde::Serialize;

use crate::alone::Alone;

/// A found sentence.
#[derive(Debug, Serialize)]
pub struct Hit {
    /// Cosine similarity.
    pub score: f32,
    /// Line number in the file, from 1.
    pub line: usize,
    /// The sentence.
    pub text: String,
}

/// The hits of a query, best first.
#[derive(Debug, Serialize)]
pub struct Hits {
    /// The query.
    pub query: String,
    /// The hits.
    pub hits: Vec<Hit>,
}

/// All results of the program.
pub struct Outcome {
    pub workers: usize,
    pub corpus: String,
    pub sentences: usize,
    pub model_bytes: u64,
    pub sentences_per_s: f64,
    pub hits: Vec<Hits>,
    pub report: Report,
    pub alone: Option<Alone>,
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Shortens text to a few lines of a terminal.
fn short(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(240) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

impl Outcome {
    /// Converts to a JSON object, with sizes in MiB from the kernel's figures.
    pub fn json(&self) -> serde_json::Value {
        let workers = || self.report.processes.iter().skip(1);
        serde_json::json!({
            "workers": self.workers,
            "sentences": self.sentences,
            "model_mib": mib(self.model_bytes),
            "arena_mib": mib(self.report.arena),
            "sum_pss_mib": mib(self.report.pss()),
            "anonymous_mib": workers().map(|process| mib(process.private)).collect::<Vec<_>>(),
            "attach_ms": workers().filter_map(|process| Some(process.attach_micros? as f64 / 1e3)).collect::<Vec<_>>(),
            "decode_ms": workers().filter_map(|process| Some(process.decode_micros? as f64 / 1e3)).collect::<Vec<_>>(),
            "sentences_per_s": self.sentences_per_s,
            "own_copy": self.alone,
            "hits": self.hits,
        })
    }

    /// Prints the memory of each process, with sharing and with its own copy.
    fn table(&self, f: &mut fmt::Formatter<'_>, alone: &Alone) -> fmt::Result {
        writeln!(
            f,
            "{:<10} {:>8} {:>16} {:>16} {:>10}",
            "process", "pid", "sharing, MiB", "own copy, MiB", "saved, MiB"
        )?;
        let line = |f: &mut fmt::Formatter<'_>, name: &str, pid: &str, sharing: f64, own: f64| {
            writeln!(f, "{name:<10} {pid:>8} {sharing:>16.1} {own:>16.1} {:>10.1}", own - sharing)
        };
        let mut workers = 0.0;
        for (index, process) in self.report.processes.iter().enumerate() {
            let sharing = mib(process.private);
            // The owner only writes the arena, so it would not exist without sharing.
            let own = if index > 0 { alone.anonymous_mib } else { 0.0 };
            workers += if index > 0 { sharing } else { 0.0 };
            line(f, &process.name, &process.pid.to_string(), sharing, own)?;
        }
        line(f, "arena", "", mib(self.report.arena), 0.0)?;
        let own = alone.anonymous_mib * self.workers as f64;
        writeln!(f, "{}", "-".repeat(64))?;
        line(f, "sum", "", workers + mib(self.report.processes[0].private) + mib(self.report.arena), own)?;
        writeln!(
            f,
            "private memory (Anonymous) of each process; own copy: measured in a process that loaded the model itself.\n\
             Sum of PSS, code included, and those pages of the arena that were used: {:.1} MiB with sharing.",
            mib(self.report.pss())
        )
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Hits { query, hits } in &self.hits {
            writeln!(f, "{query}")?;
            hits.iter().try_for_each(|hit| writeln!(f, "  {:.3}  {}", hit.score, short(&hit.text)))?;
            writeln!(f)?;
        }
        writeln!(
            f,
            "{} sentences of {} embedded by {} {}: {:.0} sentences/s",
            self.sentences,
            self.corpus,
            self.workers,
            if self.workers == 1 { "worker" } else { "workers" },
            self.sentences_per_s
        )?;
        let slowest = |micros: fn(&ProcessReport) -> Option<u64>| {
            self.report.processes.iter().filter_map(micros).max().unwrap_or(0) as f64 / 1e3
        };
        write!(
            f,
            "a worker {} the {:.1} MiB of weights in {:.1} ms at most, and made its copy of the tokenizer in {:.0} ms",
            if self.report.processes.iter().any(|process| process.copied > 0) { "uploaded" } else { "borrowed" },
            mib(self.model_bytes),
            slowest(|process| process.attach_micros),
            slowest(|process| process.decode_micros)
        )?;
        match &self.alone {
            Some(alone) => writeln!(f, ";\na process of its own loads both in {:.0} ms", alone.load_ms)?,
            None => writeln!(f)?,
        }
        writeln!(f)?;
        match &self.alone {
            Some(alone) => self.table(f, alone),
            None => writeln!(f, "{}", self.report),
        }
    }
}
