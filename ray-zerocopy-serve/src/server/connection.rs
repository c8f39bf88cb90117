//! Accepted connections: a limit of their number, and times in which a client must begin, and must read.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum_server::accept::Accept;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};

/// Bytes by which the version of HTTP is known. The time limits of HTTP begin after them.
const OPENING: usize = 24;

/// Accepts connections up to a limit, and closes further ones.
#[derive(Clone, Debug)]
pub(super) struct Connections<A> {
    /// What comes before HTTP, such as TLS.
    acceptor: A,
    places: Arc<Semaphore>,
    patience: Duration,
}

impl<A> Connections<A> {
    pub(super) fn new(acceptor: A, limit: usize, patience: Duration) -> Self {
        Self { acceptor, places: Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS))), patience }
    }
}

impl<A, S> Accept<TcpStream, S> for Connections<A>
where
    A: Accept<TcpStream, S>,
    A::Future: Send + 'static,
{
    type Stream = Connection<A::Stream>;
    type Service = A::Service;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, Self::Service)>> + Send>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let patience = self.patience;
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(io::Error::other);
        let place = place.and_then(|place| stream.set_nodelay(true).map(|()| place));
        let accepted = place.map(|place| (place, self.acceptor.accept(stream, service)));
        Box::pin(async move {
            let (place, accepting) = accepted?;
            let (stream, service) = accepting.await?;
            let opening = Some(Box::pin(sleep(patience)));
            Ok((Connection { stream, patience, received: 0, opening, writing: None, _place: place }, service))
        })
    }
}

/// A connection whose client must begin a request, and take what is sent, within a time.
pub(super) struct Connection<T> {
    stream: T,
    patience: Duration,
    received: usize,
    /// Ends when the client has not begun in time.
    opening: Option<Pin<Box<Sleep>>>,
    /// Ends when the client has not read for too long.
    writing: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

impl<T> Connection<T> {
    /// Passes on the result of a write, or fails if writes have been pending for too long.
    fn bounded<R>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if written.is_ready() {
            self.writing = None;
            return written;
        }
        let patience = self.patience;
        let writing = self.writing.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(writing.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Connection<T> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = to.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, to);
        let Some(opening) = &mut self.opening else { return read };
        if read.is_pending() {
            ready!(opening.as_mut().poll(context));
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client sends nothing")));
        }
        self.received += to.filled().len() - before;
        if self.received >= OPENING {
            self.opening = None;
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Connection<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.opening = None;
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.bounded(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.bounded(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.bounded(context, shut)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.opening = None;
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.bounded(context, written)
    }
}
