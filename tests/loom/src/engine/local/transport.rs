//! A socket without a kernel, and the worker at its other end.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::bundle::SharedArea;
use super::protocol::{Answer, Request};
use crate::engine::frame::Packet;
use crate::engine::message::{Incoming, Outgoing};
use crate::engine::program::Attached;
use crate::os::sync::{Condvar, Mutex};

/// What a worker does when a call arrives. Other requests are always replied to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reaction {
    Reply,
    /// Never replies.
    Hang,
    /// Replies when it is told that the call has been cancelled.
    ReplyWhenCancelled,
    /// Ends with the call received or not.
    Die(Delivery),
    /// Ends after it has replied.
    ReplyAndDie,
    /// Sends two items, and replies.
    ItemsThenReply,
    /// Ends after it has sent an item, with the last packet received or not.
    ItemThenDie(Delivery),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    Received,
    NotReceived,
}

pub(crate) struct Received<M> {
    pub(crate) message: M,
    pub(crate) payload: Incoming,
}

pub(crate) enum Event<M> {
    Message(Received<M>),
    Unreadable(io::Error),
    Quiet,
    Gone(Delivery),
}

/// One end of the connection, and the worker at the other.
#[derive(Clone)]
pub(crate) struct Connection(Arc<SharedSocket>, SharedArea);

/// The socket, and the notification that something has arrived.
pub(crate) struct SharedSocket(Mutex<Socket>, Condvar);

impl SharedSocket {
    /// Makes a worker reply that waits until its call is cancelled.
    pub(super) fn cancel(&self, serial: u64) {
        let mut socket = self.0.lock();
        if socket.until_cancelled.take_if(|running| *running == serial).is_some() {
            socket.arrived.push_back((serial, Answer::Done));
            self.1.notify_all();
        }
    }
}

struct Socket {
    /// The reactions to the next calls; after them, calls are replied to.
    script: VecDeque<Reaction>,
    arrived: VecDeque<(u64, Answer)>,
    /// The call that is replied to when it is cancelled.
    until_cancelled: Option<u64>,
    has_ended: bool,
    is_hung_up: bool,
    /// What the kernel reports with the end of the stream, once.
    undelivered: bool,
}

impl Socket {
    fn is_at_end(&self) -> bool {
        self.has_ended || self.is_hung_up
    }

    fn event(&mut self) -> Option<Event<(u64, Answer)>> {
        if let Some(message) = self.arrived.pop_front() {
            return Some(Event::Message(Received { message, payload: Incoming }));
        }
        let is_at_end = self.is_at_end();
        is_at_end.then(|| {
            let undelivered = std::mem::take(&mut self.undelivered);
            Event::Gone(if undelivered { Delivery::NotReceived } else { Delivery::Received })
        })
    }
}

impl Connection {
    pub(crate) fn new(script: &[Reaction]) -> Self {
        let socket = Socket {
            script: script.iter().copied().collect(),
            arrived: VecDeque::new(),
            until_cancelled: None,
            has_ended: false,
            is_hung_up: false,
            undelivered: false,
        };
        let socket = Arc::new(SharedSocket(Mutex::new(socket), Condvar::default()));
        let area = SharedArea::new(&socket);
        Self(socket, area)
    }

    pub(super) fn set_patience(&self, _patience: Duration) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn packet(&self, message: &(u64, Request), payload: &Outgoing) -> io::Result<Packet> {
        Packet::new(message, payload)
    }

    pub(super) fn send_packet(&self, packet: &Packet, _fds: &[()]) -> io::Result<()> {
        let mut socket = self.0.0.lock();
        if socket.is_at_end() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let answer = match packet.request {
            Request::Load { .. } => Answer::Loaded(Box::new(Attached)),
            Request::Forget { .. } => Answer::Forgotten,
            Request::Call { .. } => match socket.script.pop_front().unwrap_or(Reaction::Reply) {
                Reaction::Reply => Answer::Done,
                Reaction::ReplyAndDie => {
                    socket.has_ended = true;
                    Answer::Done
                }
                Reaction::ItemsThenReply => {
                    socket.arrived.extend([0, 1].map(|number| (packet.serial, Answer::Item(number))));
                    Answer::Done
                }
                Reaction::ItemThenDie(delivery) => {
                    socket.has_ended = true;
                    socket.undelivered = delivery == Delivery::NotReceived;
                    Answer::Item(0)
                }
                Reaction::Hang => return Ok(()),
                Reaction::ReplyWhenCancelled => {
                    socket.until_cancelled = Some(packet.serial);
                    return Ok(());
                }
                Reaction::Die(delivery) => {
                    socket.has_ended = true;
                    socket.undelivered = delivery == Delivery::NotReceived;
                    self.0.1.notify_all();
                    return Ok(());
                }
            },
            Request::Bundle { .. } => {
                if !self.run_bundle(&mut socket) {
                    self.0.1.notify_all();
                    return Ok(());
                }
                Answer::Over
            }
            Request::Wake => return Ok(()),
            Request::ShutDown => {
                socket.has_ended = true;
                self.0.1.notify_all();
                return Ok(());
            }
        };
        socket.arrived.push_back((packet.serial, answer));
        self.0.1.notify_all();
        Ok(())
    }

    /// Runs the calls of a bundle. Returns `false` if one of them is not answered.
    fn run_bundle(&self, socket: &mut Socket) -> bool {
        loop {
            if socket.script.pop_front_if(|next| *next == Reaction::Die(Delivery::NotReceived)).is_some() {
                (socket.has_ended, socket.undelivered) = (true, true);
                return false;
            }
            if !self.1.begin() {
                return true;
            }
            match socket.script.pop_front().unwrap_or(Reaction::Reply) {
                Reaction::Hang => return false,
                Reaction::Die(_) => {
                    socket.has_ended = true;
                    return false;
                }
                _ => self.1.finish(),
            }
        }
    }

    pub(super) fn shared(&self) -> Option<&SharedArea> {
        Some(&self.1)
    }

    /// The supervisor of a model does not wait before it looks.
    pub(super) fn is_readable_within(&self, _time: Duration) -> bool {
        self.is_readable()
    }

    /// No worker of a model waits for a packet while it runs a call.
    pub(super) fn try_send(&self, _wake: &(u64, Request)) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn hang_up(&self) {
        self.0.0.lock().is_hung_up = true;
        self.0.1.notify_all();
    }

    pub(super) fn is_readable(&self) -> bool {
        let socket = self.0.0.lock();
        !socket.arrived.is_empty() || socket.is_at_end()
    }

    /// Waits for something to happen, however long that takes.
    pub(super) fn next(&self) -> io::Result<Event<(u64, Answer)>> {
        let mut socket = self.0.0.lock();
        loop {
            if let Some(event) = socket.event() {
                return Ok(event);
            }
            socket = self.0.1.wait(socket, None);
        }
    }

    pub(super) fn next_at_once(&self) -> io::Result<Event<(u64, Answer)>> {
        Ok(self.0.0.lock().event().unwrap_or(Event::Quiet))
    }

    pub(super) fn has_ended(&self) -> bool {
        self.0.0.lock().has_ended
    }

    pub(super) fn end(&self, _delivery: Delivery) {
        self.0.0.lock().has_ended = true;
        self.0.1.notify_all();
    }
}
