//! Admission of calls, and the sizes of their messages, before the messages arrive.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tonic::Status;

use crate::admission::{Permit, Room};
use crate::error::ServeError;
use crate::service::Service;

/// The right of the call to run, in the extensions of its request. It ends with the last clone.
#[derive(Clone)]
pub(super) struct Admitted(Arc<Mutex<Permit>>);

/// Admits a call of a model. Those of a stream are admitted one by one, when they have arrived.
pub(super) async fn admit(State(service): State<Service>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let counts = if path.ends_with("/ModelInfer") {
        match service.admission().enter() {
            Ok(permit) => {
                let admitted = Admitted(Arc::new(Mutex::new(permit)));
                request.extensions_mut().insert(admitted.clone());
                Counts::Call(admitted)
            }
            Err(error) => return Status::from(error).into_http(),
        }
    } else {
        Counts::Message(service.admission().room())
    };
    next.run(request.map(|body| Body::new(Counted { body, service, counts, heads: Heads::default() }))).await
}

/// Where the bytes of a body count.
enum Counts {
    /// In the call, as long as it runs.
    Call(Admitted),
    /// For a stream, or a request that is not a call of a model: here, while a message arrives. A call of a stream is
    /// admitted then, and counts its bytes.
    Message(Room),
}

/// A body that ends with an error before a message arrives that is larger than the limits allow.
struct Counted {
    body: Body,
    service: Service,
    counts: Counts,
    heads: Heads,
}

impl Counted {
    /// Checks the messages that begin in a part of the body.
    fn check(&mut self, data: &[u8]) -> Result<(), ServeError> {
        let Self { service, counts, heads, .. } = self;
        heads.read(data, |bytes| match counts {
            Counts::Call(Admitted(permit)) => permit.lock().unwrap_or_else(PoisonError::into_inner).reserve(bytes),
            Counts::Message(room) => {
                *room = service.admission().room();
                room.reserve(bytes)
            }
        })?;
        if let (Counts::Message(room), true) = (counts, heads.is_complete()) {
            *room = service.admission().room();
        }
        Ok(())
    }
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        Poll::Ready(frame.map(|frame| {
            let frame = frame.map_err(|error| Status::from_error(Box::new(error)))?;
            self.check(frame.data_ref().map_or(&[], |data| data))?;
            Ok(frame)
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Bytes of the head of a message: whether it is compressed, and its length.
const HEAD: usize = 5;

/// Where messages begin in a body that arrives in parts.
#[derive(Default)]
struct Heads {
    head: [u8; HEAD],
    /// Bytes of the head that have arrived.
    arrived: usize,
    /// Bytes of the message that have not.
    left: usize,
}

impl Heads {
    /// Whether the last message that began has arrived.
    fn is_complete(&self) -> bool {
        self.left == 0
    }

    /// Reads a part, and calls `found` with the length of each message that begins.
    fn read<E>(&mut self, mut part: &[u8], mut found: impl FnMut(usize) -> Result<(), E>) -> Result<(), E> {
        while !part.is_empty() {
            let skipped = part.len().min(self.left);
            self.left -= skipped;
            part = &part[skipped..];
            let taken = part.len().min(HEAD - self.arrived);
            self.head[self.arrived..self.arrived + taken].copy_from_slice(&part[..taken]);
            self.arrived += taken;
            part = &part[taken..];
            if self.arrived == HEAD {
                let [_, length @ ..] = std::mem::take(&mut self.head);
                let length = u32::from_be_bytes(length) as usize;
                (self.arrived, self.left) = (0, length);
                found(length)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Heads;

    #[test]
    fn heads_are_found_wherever_parts_end() {
        let lengths = [3_usize, 0, 300, 1];
        let body: Vec<u8> = lengths
            .iter()
            .flat_map(|&length| [&[0][..], &(length as u32).to_be_bytes(), &vec![7; length]].concat())
            .collect();
        for size in 1..body.len() {
            let (mut heads, mut found) = (Heads::default(), Vec::new());
            for part in body.chunks(size) {
                let note = |length| {
                    found.push(length);
                    Ok::<_, ()>(())
                };
                heads.read(part, note).unwrap();
            }
            assert_eq!(found, lengths, "{size}");
        }
        assert_eq!(Heads::default().read(&[0, 0, 0, 1, 0, 7], Err), Err(256));
    }
}
