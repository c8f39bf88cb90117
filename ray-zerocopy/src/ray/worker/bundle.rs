//! Runs the calls of a bundle one after the other, each as if it had been sent alone.

use std::time::{Duration, Instant};

use super::cancellation::CancelledCalls;
use crate::engine::message::{Incoming, Outgoing};
use crate::engine::served::{MethodError, Served};
use crate::engine::sys::entry::FnToken;
use crate::engine::trace::remote::{self, CallContext};
use crate::ray::wire::bundle::{BundledAnswer, CallBundle};
use crate::ray::wire::cancelled::BundleId;
use crate::ray::wire::protocol::{Answer, ProgramId};

/// The calls of a bundle, with their arguments.
pub(super) struct BundledCalls<'a> {
    /// `None` for a call that was cancelled before it was sent.
    parts: Vec<Option<(&'a FnToken, Incoming)>>,
    traces: &'a [Option<CallContext>],
    cancelled: CancelledCalls,
}

impl<'a> BundledCalls<'a> {
    /// `waited` is the time that the call before it has taken. The bundle may have waited as long.
    pub(super) fn new(
        program: &ProgramId,
        bundle: &'a CallBundle,
        arguments: &Incoming,
        waited: Duration,
    ) -> Result<Self, Answer> {
        let (what, reason) = ("a bundle", "the list of its calls does not fit their arguments");
        let misfit = || Answer::Failed(MethodError::Wire { what: what.to_owned(), reason: reason.to_owned() });
        let parts = bundle.parts(arguments).ok_or_else(misfit)?;
        Ok(Self {
            parts,
            traces: &bundle.traces,
            cancelled: CancelledCalls::new(BundleId::new(program, bundle.id), waited),
        })
    }

    /// Returns the answer of each call, and the results of all.
    pub(super) fn run(self, served: &mut dyn Served) -> (Vec<BundledAnswer>, Outgoing) {
        let mut results = Outgoing::default();
        let run = |(number, part): (usize, Option<(&FnToken, Incoming)>)| {
            let begun = part.and_then(|part| Some((part, self.cancelled.begin(number)?)));
            let Some(((handler, arguments), _running)) = begun else {
                return BundledAnswer { result: None, took: Duration::ZERO };
            };
            let start = Instant::now();
            let trace = self.traces.get(number).and_then(Option::as_ref);
            let result = remote::run(trace, || served.call(handler, arguments, None));
            let took = start.elapsed();
            let result = result.map(|result| {
                let count = result.segments.len();
                results.segments.extend(result.segments);
                count
            });
            BundledAnswer { result: Some(result), took }
        };
        let answers = self.parts.into_iter().enumerate().map(run).collect();
        (answers, results)
    }
}
