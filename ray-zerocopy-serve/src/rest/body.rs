//! Bodies: received within the limits of size and time, and sent in parts without putting them together.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::http::{HeaderMap, header};
use bytes::{BufMut, Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;

use crate::admission::Permit;
use crate::error::{ErrorKind, ServeError};
use crate::service::Service;

/// Alignment of the first tensor of a body.
const ALIGNMENT: usize = 64;
/// Most memory that a body gets before it has arrived.
const AHEAD: usize = 16 << 20;

/// Receives a body. The byte at `aligned_at` gets an aligned address, so that a tensor there can be used in place.
///
/// # Errors
/// If it is too large, too slow, compressed, or ends early.
pub(super) async fn receive(
    service: &Service,
    permit: &mut Permit,
    headers: &HeaderMap,
    body: Body,
    aligned_at: usize,
) -> Result<Bytes, ServeError> {
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
        let message = format!("the body is compressed by {encoding:?}; send it without compression");
        return Err(ServeError::new(ErrorKind::Unsupported, message));
    }
    let time = service.admission().limits().receive;
    let received = tokio::time::timeout(time, collect(permit, body, aligned_at)).await;
    received.unwrap_or_else(|_| {
        Err(ServeError::new(ErrorKind::Slow, format!("the body of the request did not arrive within {time:?}")))
    })
}

async fn collect(permit: &mut Permit, mut body: Body, aligned_at: usize) -> Result<Bytes, ServeError> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    permit.reserve(announced)?;
    let mut room = announced;
    let mut all = BytesMut::with_capacity(announced.min(AHEAD) + ALIGNMENT);
    let padding =
        (all.as_ptr() as usize + aligned_at).next_multiple_of(ALIGNMENT) - (all.as_ptr() as usize + aligned_at);
    all.put_bytes(0, padding);
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| ServeError::invalid(format!("the body of the request ended early: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if data.len() > room {
            permit.reserve(data.len() - room)?;
        }
        room = room.saturating_sub(data.len());
        all.extend_from_slice(&data);
    }
    Ok(all.freeze().slice(padding..))
}

/// A body of several parts.
pub(super) struct Parts(VecDeque<Bytes>);

impl Parts {
    pub(super) fn body(parts: impl IntoIterator<Item = Bytes>) -> Body {
        Body::new(Self(parts.into_iter().filter(|part| !part.is_empty()).collect()))
    }
}

impl HttpBody for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|part| part.len() as u64).sum())
    }
}
