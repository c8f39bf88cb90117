//! Admission: limits of calls and bytes in flight, and the state of the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::error::{ErrorKind, ServeError};

/// Limits of what clients may send, and for how long.
///
/// ```
/// use std::time::Duration;
///
/// use ray_zerocopy_serve::Limits;
///
/// let limits = Limits::default().calls(256).request_bytes(16 << 20).timeout(Duration::from_secs(5));
/// # let _ = limits;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    pub(crate) calls: usize,
    pub(crate) bytes: usize,
    pub(crate) request_bytes: usize,
    pub(crate) timeout: Duration,
    pub(crate) receive: Duration,
    pub(crate) connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            calls: 1024,
            bytes: 1 << 30,
            request_bytes: 256 << 20,
            timeout: Duration::from_secs(60),
            receive: Duration::from_secs(30),
            connections: 4096,
        }
    }
}

impl Limits {
    /// Limits the number of calls that wait or run. A further one is refused with 429. Default: 1024.
    #[must_use]
    pub fn calls(self, calls: usize) -> Self {
        Self { calls: calls.max(1), ..self }
    }

    /// Limits the bytes of the requests that are received, wait or run. A further one is refused with 429.
    /// Default: 1 GiB.
    #[must_use]
    pub fn bytes(self, bytes: usize) -> Self {
        Self { bytes: bytes.max(1), ..self }
    }

    /// Limits the bytes of one request. A larger one is refused with 413. Default: 256 MiB.
    #[must_use]
    pub fn request_bytes(self, bytes: usize) -> Self {
        Self { request_bytes: bytes.max(1), ..self }
    }

    /// Sets the longest duration of a call, including its time in the queue. A request may ask for a shorter one.
    /// After it, the call is cancelled, with 504. Default: one minute.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Sets the time in which a client must have sent its headers, and then its body. Default: 30 seconds.
    #[must_use]
    pub fn receive(self, time: Duration) -> Self {
        Self { receive: time, ..self }
    }

    /// Limits the number of connections. Further ones wait until one ends. Default: 4096.
    #[must_use]
    pub fn connections(self, connections: usize) -> Self {
        Self { connections: connections.max(1), ..self }
    }

    /// Refuses a request that has so many bytes or more, if that is too large.
    pub(crate) fn check(&self, bytes: usize) -> Result<(), ServeError> {
        let limit = self.request_bytes;
        if bytes <= limit {
            return Ok(());
        }
        let message =
            format!("the request has {bytes} bytes or more, and may have {limit}; send less, or raise the limit");
        Err(ServeError::new(ErrorKind::TooLarge, message))
    }

    /// The duration of a call that asks for `asked`.
    pub(crate) fn timeout_of(&self, asked: Option<Duration>) -> Duration {
        asked.map_or(self.timeout, |asked| asked.min(self.timeout))
    }
}

/// Admits calls within the limits, and none while the server drains.
#[derive(Clone)]
pub(crate) struct Admission(Arc<Inner>);

struct Inner {
    limits: Limits,
    calls: AtomicUsize,
    bytes: AtomicUsize,
    is_draining: AtomicBool,
    is_closed: AtomicBool,
    /// Notified when the last call has ended.
    idle: Notify,
}

/// The right to run a call. It ends when this is dropped.
pub(crate) struct Permit {
    admission: Admission,
    room: Room,
}

/// Room for bytes of requests. It is given back when this is dropped.
pub(crate) struct Room {
    admission: Admission,
    bytes: usize,
}

impl Admission {
    pub(crate) fn new(limits: Limits) -> Self {
        Self(Arc::new(Inner {
            limits,
            calls: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            is_draining: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            idle: Notify::new(),
        }))
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Admits a call.
    ///
    /// # Errors
    /// If there are as many calls as there may be, or the server does not take calls any more.
    pub(crate) fn enter(&self) -> Result<Permit, ServeError> {
        let calls = self.0.calls.fetch_add(1, Ordering::SeqCst);
        let permit = Permit { admission: self.clone(), room: self.room() };
        if self.0.is_closed.load(Ordering::SeqCst) {
            let message = "the server is shutting down and takes no more calls; send the call to another one";
            return Err(ServeError::new(ErrorKind::Unavailable, message));
        }
        if calls >= self.0.limits.calls {
            let message = format!("{calls} calls are waiting or running, which is the limit; try again later");
            return Err(ServeError::new(ErrorKind::Busy, message));
        }
        Ok(permit)
    }

    /// Returns room for no bytes yet.
    pub(crate) fn room(&self) -> Room {
        Room { admission: self.clone(), bytes: 0 }
    }

    /// Number of calls that wait or run.
    pub(crate) fn in_flight(&self) -> usize {
        self.0.calls.load(Ordering::SeqCst)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.0.is_draining.load(Ordering::SeqCst)
    }

    /// Makes the server not ready. Calls are still admitted.
    pub(crate) fn drain(&self) {
        self.0.is_draining.store(true, Ordering::SeqCst);
    }

    /// Admits no further call.
    pub(crate) fn close(&self) {
        self.drain();
        self.0.is_closed.store(true, Ordering::SeqCst);
    }

    /// Waits until no call is in flight.
    pub(crate) async fn idle(&self) {
        loop {
            let idle = self.0.idle.notified();
            if self.in_flight() == 0 {
                return;
            }
            idle.await;
        }
    }
}

impl Permit {
    /// Reserves room for further bytes of the request.
    ///
    /// # Errors
    /// If the request is too large, or all requests are together.
    pub(crate) fn reserve(&mut self, bytes: usize) -> Result<(), ServeError> {
        self.room.reserve(bytes)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let inner = &self.admission.0;
        if inner.calls.fetch_sub(1, Ordering::SeqCst) == 1 {
            inner.idle.notify_waiters();
        }
    }
}

impl Room {
    /// Reserves room for further bytes of a request.
    ///
    /// # Errors
    /// If the request is too large, or all requests are together.
    pub(crate) fn reserve(&mut self, bytes: usize) -> Result<(), ServeError> {
        let Inner { limits, bytes: all, .. } = &*self.admission.0;
        let own = self.bytes.saturating_add(bytes);
        limits.check(own)?;
        let before = all.fetch_add(bytes, Ordering::SeqCst);
        self.bytes = own;
        if before.saturating_add(bytes) > limits.bytes {
            let message =
                format!("requests of {before} bytes are in flight, and the limit is {}; try again later", limits.bytes);
            return Err(ServeError::new(ErrorKind::Busy, message));
        }
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.admission.0.bytes.fetch_sub(self.bytes, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Admission, Limits};
    use crate::error::ErrorKind;

    #[test]
    fn calls_and_bytes_beyond_the_limits_are_refused() {
        let admission = Admission::new(Limits::default().calls(2).bytes(100).request_bytes(80));
        let mut one = admission.enter().unwrap();
        let mut two = admission.enter().unwrap();
        assert_eq!(admission.enter().err().unwrap().kind(), ErrorKind::Busy);
        assert_eq!(one.reserve(81).err().unwrap().kind(), ErrorKind::TooLarge);
        one.reserve(60).unwrap();
        assert_eq!(two.reserve(60).err().unwrap().kind(), ErrorKind::Busy);
        drop((one, two));
        let mut three = admission.enter().unwrap();
        three.reserve(80).unwrap();
        assert_eq!(admission.in_flight(), 1);
        admission.close();
        assert_eq!(admission.enter().err().unwrap().kind(), ErrorKind::Unavailable);
        assert_eq!(admission.in_flight(), 1);
    }

    #[test]
    fn room_is_given_back() {
        let admission = Admission::new(Limits::default().bytes(100));
        let (mut one, mut two) = (admission.room(), admission.room());
        one.reserve(60).unwrap();
        assert_eq!(two.reserve(60).err().unwrap().kind(), ErrorKind::Busy);
        drop((one, two));
        admission.enter().unwrap().reserve(100).unwrap();
        admission.room().reserve(100).unwrap();
    }

    #[test]
    fn request_cannot_ask_for_more_time_than_the_limit() {
        let limits = Limits::default().timeout(Duration::from_secs(2));
        assert_eq!(limits.timeout_of(Some(Duration::from_secs(9))), Duration::from_secs(2));
        assert_eq!(limits.timeout_of(Some(Duration::from_millis(5))), Duration::from_millis(5));
        assert_eq!(limits.timeout_of(None), Duration::from_secs(2));
    }
}
