//! Messages of several calls in one message, without copying their segments.
//!
//! The first segment is the list of the parts. The segments of the parts follow.

use burn::tensor::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec;
use crate::engine::message::{Incoming, Outgoing};
use crate::engine::served::MethodError;

/// A part of a message: the arguments or the result of one call.
#[derive(Serialize, Deserialize)]
enum Part {
    /// The number of its segments.
    Message(usize),
    Failed(MethodError),
}

/// Joins messages into one.
///
/// # Errors
/// If the list of the parts cannot be serialised.
pub(crate) fn join(parts: Vec<Result<Outgoing, MethodError>>) -> Result<Outgoing, String> {
    let mut heads = Vec::with_capacity(parts.len());
    let mut segments = vec![Bytes::from_bytes_vec(Vec::new())];
    for part in parts {
        heads.push(match part {
            Ok(message) => {
                let count = message.segments.len();
                segments.extend(message.segments);
                Part::Message(count)
            }
            Err(error) => Part::Failed(error),
        });
    }
    segments[0] = Bytes::from_bytes_vec(codec::encode(&heads)?);
    Ok(Outgoing { segments })
}

/// Takes a joined message apart.
///
/// # Errors
/// If it is not a joined message.
pub(crate) fn take_apart(message: Incoming) -> Result<Vec<Result<Incoming, MethodError>>, String> {
    let Incoming { segments, is_from_here } = message;
    let mut segments = segments.into_iter();
    let heads = segments.next().ok_or("a message of several calls has no list of its parts")?;
    let heads: Vec<Part> = codec::decode(&heads)?;
    let parts = heads.into_iter().map(|head| match head {
        Part::Message(count) => {
            let part: Vec<_> = segments.by_ref().take(count).collect();
            if part.len() == count {
                Ok(Ok(Incoming { segments: part, is_from_here }))
            } else {
                Err("a message of several calls ends too early".to_owned())
            }
        }
        Part::Failed(error) => Ok(Err(error)),
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Bytes;

    use super::{join, take_apart};
    use crate::engine::message::{Incoming, Outgoing};
    use crate::engine::served::MethodError;

    fn message(segments: &[&[u8]]) -> Outgoing {
        Outgoing { segments: segments.iter().map(|bytes| Bytes::from_bytes_vec(bytes.to_vec())).collect() }
    }

    #[test]
    fn parts_come_back() {
        let parts = vec![Ok(message(&[b"a", b"tensor"])), Err(MethodError::not_loaded()), Ok(message(&[b"b"]))];
        let found = take_apart(join(parts).unwrap().received()).unwrap();
        assert_eq!(found[0].as_ref().unwrap().segments, [&b"a"[..], &b"tensor"[..]]);
        assert!(matches!(&found[1], Err(MethodError::Wire { .. })));
        assert_eq!(found[2].as_ref().unwrap().segments, [&b"b"[..]]);
    }

    #[test]
    fn incomplete_messages_are_refused() {
        let mut joined = join(vec![Ok(message(&[b"a"])), Ok(message(&[b"b"]))]).unwrap().received();
        joined.segments.pop();
        assert_eq!(take_apart(joined).unwrap_err(), "a message of several calls ends too early");
        assert!(take_apart(Incoming::default()).is_err());
        assert!(take_apart(message(&[b"\xff"]).received()).is_err());
    }
}
