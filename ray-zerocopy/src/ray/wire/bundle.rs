//! Bundles: several calls of a pipeline in one message, and their answers in one reply.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::frame::Payload;
use super::protocol::{Answer, Reply};
use crate::engine::message::Incoming;
use crate::engine::served::MethodError;
use crate::engine::sys::entry::FnToken;
use crate::engine::trace::remote::CallContext;
use crate::error::ray::RayError;
use crate::tensor::align::aligned;

/// Results up to this size in bytes do not keep the memory of the whole reply.
const COPIED: usize = 64 * 1024;

/// The calls of a bundle. The message carries their arguments.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CallBundle {
    /// Number of the bundle, unique among those of its driver.
    pub id: u64,
    /// The methods.
    handlers: Vec<FnToken>,
    /// The index of the method of each call, and the number of segments of its arguments. `None` if the call was
    /// cancelled before the bundle was sent.
    calls: Vec<Option<(usize, usize)>>,
    /// What is known of the spans of each call. Empty if none is traced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub traces: Vec<Option<CallContext>>,
}

/// The answer of one call of a bundle.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct BundledAnswer {
    /// The number of segments of the result. `None` if the call was cancelled before it began.
    pub result: Option<Result<usize, MethodError>>,
    /// Time that the call has taken.
    pub took: Duration,
}

impl CallBundle {
    /// Creates a bundle, and the payload of its message.
    pub(crate) fn new<'a>(id: u64, calls: impl IntoIterator<Item = Option<(FnToken, &'a Payload)>>) -> (Self, Payload) {
        let (mut handlers, mut all) = (Vec::new(), Payload::default());
        let mut part = |(handler, payload): (FnToken, &Payload)| {
            let index = handlers.iter().rposition(|known| *known == handler).unwrap_or_else(|| {
                handlers.push(handler);
                handlers.len() - 1
            });
            (index, all.append(payload))
        };
        let calls = calls.into_iter().map(|call| call.map(&mut part)).collect();
        (Self { id, handlers, calls, traces: Vec::new() }, all)
    }

    /// The method and the arguments of each call. Returns `None` if the list does not fit the payload.
    pub(crate) fn parts(&self, payload: &Incoming) -> Option<Vec<Option<(&FnToken, Incoming)>>> {
        let mut segments = payload.segments.as_slice();
        let mut part = |(handler, count): (usize, usize)| {
            let own = segments.split_off(..count)?;
            Some((self.handlers.get(handler)?, Incoming::new(own.to_vec())))
        };
        let part = |call: &Option<(usize, usize)>| call.map_or(Some(None), |call| part(call).map(Some));
        self.calls.iter().map(part).collect()
    }
}

/// Divides the reply of a bundle into those of its calls. A reply or an error that is not about single calls is
/// that of each call.
pub(crate) fn divide(
    result: Result<(Reply, Incoming), RayError>,
    calls: usize,
) -> Vec<Result<(Reply, Incoming), RayError>> {
    let (reply, payload) = match result {
        Ok((reply, payload)) => (reply, payload),
        Err(error) => return vec![Err(error); calls],
    };
    let Answer::Bundle(answers) = reply.answer else {
        return (0..calls).map(|_| Ok((reply.clone(), Incoming::default()))).collect();
    };
    let missing = || {
        let reason = "the list of answers does not fit the results".to_owned();
        Err(RayError::Wire { what: "the reply of a bundle".to_owned(), reason })
    };
    let mut segments = payload.segments.as_slice();
    let (from, mut attached) = (reply.from, reply.attached);
    let mut parts = answers.into_iter().map(|BundledAnswer { result, took }| {
        let (answer, own) = match result {
            Some(Ok(count)) => (Answer::Done, segments.split_off(..count)?),
            Some(Err(error)) => (Answer::Failed(error), Default::default()),
            // Its caller has the error that it was cancelled.
            None => (Answer::Skipped, Default::default()),
        };
        let copied = |segment: &bytes::Bytes| if segment.len() > COPIED { segment.clone() } else { aligned(segment) };
        let reply = Reply { from: from.clone(), attached: attached.take(), answer, took: Some(took) };
        Some((reply, Incoming::new(own.iter().map(copied).collect())))
    });
    (0..calls).map(|_| parts.next().flatten().map_or_else(missing, Ok)).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use burn::tensor::Bytes;

    use super::{BundledAnswer, CallBundle, divide};
    use crate::engine::message::{Incoming, Outgoing};
    use crate::engine::served::MethodError;
    use crate::engine::sys::entry::FnToken;
    use crate::error::ray::RayError;
    use crate::ray::wire::frame::Payload;
    use crate::ray::wire::protocol::{Answer, Origin, Reply};

    fn first(_: u16) {}

    fn second(_: u8) {}

    fn payload(segments: &[&[u8]]) -> Payload {
        let bytes = |segment: &&[u8]| Bytes::from_bytes_vec(segment.to_vec());
        Payload::from(Outgoing { segments: segments.iter().map(bytes).collect() })
    }

    fn incoming(segments: &[&[u8]]) -> Incoming {
        Incoming::new(segments.iter().map(|segment| bytes::Bytes::copy_from_slice(segment)).collect())
    }

    fn reply(answer: Answer) -> Reply {
        Reply { from: Origin { pid: 1, host: "here".to_owned() }, attached: None, answer, took: None }
    }

    /// The answers, and the segments of each.
    fn divided(answers: Vec<BundledAnswer>, payload: Incoming, calls: usize) -> Vec<Option<(String, Vec<Vec<u8>>)>> {
        let parts = divide(Ok((reply(Answer::Bundle(answers)), payload)), calls);
        let part = |part: Result<(Reply, Incoming), RayError>| {
            let (reply, own) = part.ok()?;
            Some((format!("{:?}", reply.answer), own.segments.iter().map(|segment| segment.to_vec()).collect()))
        };
        parts.into_iter().map(part).collect()
    }

    fn answer(result: Option<Result<usize, MethodError>>) -> BundledAnswer {
        BundledAnswer { result, took: Duration::ZERO }
    }

    #[test]
    fn each_call_has_its_method_and_arguments() {
        let handlers = [FnToken::of(first as fn(u16)), FnToken::of(second as fn(u8))].map(|token| token.unwrap());
        let payloads = [payload(&[b"a", b"bc"]), payload(&[]), payload(&[b"d"])];
        let call = |handler: usize, payload: usize| Some((handlers[handler].clone(), &payloads[payload]));
        let (bundle, _) = CallBundle::new(7, [call(0, 0), call(1, 1), None, call(0, 2)]);
        assert_eq!(bundle.handlers.len(), 2);
        let arguments = incoming(&[b"a", b"bc", b"d"]);
        let parts = bundle.parts(&arguments).unwrap();
        let found = parts.iter().map(|part| part.as_ref().map(|(handler, own)| (*handler, own.segments.len())));
        let expected = [Some((&handlers[0], 2)), Some((&handlers[1], 0)), None, Some((&handlers[0], 1))];
        assert!(found.eq(expected));
        assert_eq!(&parts[3].as_ref().unwrap().1.segments[0][..], b"d");
        assert!(bundle.parts(&incoming(&[b"a", b"bc"])).is_none(), "a segment is missing");
    }

    #[test]
    fn each_call_has_its_answer() {
        let failure = MethodError::Panicked("so".to_owned());
        let answers = vec![answer(Some(Ok(1))), answer(Some(Err(failure))), answer(None), answer(Some(Ok(2)))];
        let parts = divided(answers, incoming(&[b"x", b"y", b"z"]), 4);
        let done = |segments: &[&[u8]]| Some(("Done".to_owned(), segments.iter().map(|part| part.to_vec()).collect()));
        assert_eq!(parts[0], done(&[b"x"]));
        assert_eq!(parts[1], Some(("Failed(Panicked(\"so\"))".to_owned(), Vec::new())));
        assert_eq!(parts[2], Some(("Skipped".to_owned(), Vec::new())));
        assert_eq!(parts[3], done(&[b"y", b"z"]));
    }

    #[test]
    fn answers_that_do_not_fit_are_errors() {
        let parts = divided(vec![answer(Some(Ok(1))), answer(Some(Ok(2)))], incoming(&[b"x", b"y"]), 3);
        assert!(parts[0].is_some() && parts[1].is_none() && parts[2].is_none());
    }

    #[test]
    fn other_replies_are_those_of_each_call() {
        let parts = divide(Ok((reply(Answer::Missing), Incoming::default())), 2);
        assert!(
            parts.len() == 2 && parts.iter().all(|part| matches!(part, Ok((Reply { answer: Answer::Missing, .. }, _))))
        );
        let parts = divide(Err(RayError::ShutDown), 2);
        assert!(parts.len() == 2 && parts.iter().all(|part| matches!(part, Err(RayError::ShutDown))));
    }
}
