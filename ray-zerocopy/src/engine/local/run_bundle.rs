//! The worker's side of a bundle: runs several small calls, and answers them in the shared memory.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bundle::AnswerWriter;
use super::call_inbox::CallInbox;
use super::protocol::Answer;
use super::transport::Connection;
use super::worker::{Programs, answer, answer_call};
use crate::engine::message::{Incoming, Outgoing};
use crate::engine::served::MethodError;
use crate::engine::sys::entry::FnToken;
use crate::engine::trace::remote::{self, CallContext};

/// Time after which the owner is told that there are answers.
const FLUSH: Duration = Duration::from_micros(500);

/// Several calls of one program.
pub(super) struct CallBundle {
    pub(super) key: u64,
    pub(super) handlers: Vec<FnToken>,
    /// The method of each call, and its number of segments.
    pub(super) calls: Vec<(usize, usize)>,
    /// What is known of the spans of each call. Empty if none is traced.
    pub(super) traces: Vec<Option<CallContext>>,
    pub(super) payload: Incoming,
}

impl CallBundle {
    /// The method and the arguments of each call.
    fn parts(&self) -> Option<Vec<(&FnToken, Incoming)>> {
        let mut segments = self.payload.segments.iter();
        let part = |&(handler, count): &(usize, usize)| {
            let own: Vec<_> = segments.by_ref().take(count).cloned().collect();
            let is_whole = own.len() == count;
            is_whole.then_some(()).and_then(|()| Some((self.handlers.get(handler)?, Incoming::new(own))))
        };
        self.calls.iter().map(part).collect()
    }
}

/// Runs the calls, of which the first has the number `first`, until none is left.
pub(super) fn run(
    connection: &Connection,
    inbox: &Arc<CallInbox>,
    programs: &mut Programs,
    first: u64,
    bundle: &CallBundle,
) -> io::Result<()> {
    let (Some(area), Some(parts)) = (connection.shared(), bundle.parts()) else {
        let reason = "the list of its calls does not fit its arguments".to_owned();
        return answer(connection, first, &Answer::Unreadable(reason), &Outgoing::default());
    };
    let mut answers = AnswerWriter::new(area, first);
    let mut told = Instant::now();
    let mut parts: HashMap<_, _> = parts.into_iter().enumerate().collect();
    while let Some(number) = area.begin_call(first) {
        let serial = first + number as u64;
        inbox.begin(serial, false);
        let result = match (programs.get_mut(&bundle.key), parts.remove(&number)) {
            (Some(program), Some((handler, arguments))) => {
                let trace = bundle.traces.get(number).and_then(Option::as_ref);
                remote::run(trace, || program.call(handler, arguments, None))
            }
            _ => Err(MethodError::not_loaded()),
        };
        inbox.end();
        // As after a single call: output is flushed before the result can be seen.
        drop(io::stdout().flush());
        match answers.write(&result) {
            Ok(true) if told.elapsed() < FLUSH => continue,
            Ok(true) => answer(connection, first, &Answer::Answered, &Outgoing::default())?,
            Ok(false) => answer_call(connection, serial, result)?,
            Err(error) => {
                let failure = MethodError::Wire { what: "the result".to_owned(), reason: error.to_string() };
                if !answers.write(&Err(failure.clone()))? {
                    answer_call(connection, serial, Err(failure))?;
                }
            }
        }
        told = Instant::now();
    }
    answer(connection, first, &Answer::Over, &Outgoing::default())
}
