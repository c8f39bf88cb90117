//! Messages between owner and worker.
//!
//! The owner sends one request at a time. Each request except `ShutDown` and `Wake` has one answer, and the next request is sent after it. Both carry the request's number, so that an answer cannot be
//! matched to another request.

use crate::engine::served::{MethodError, Prewarm};

use serde::{Deserialize, Serialize};

use crate::arena::handle::Handle;
use crate::arena::memory::policy::MemoryPolicy;
use crate::engine::frame::parse;
use crate::engine::message::Incoming;
use crate::engine::program::Attached;
use crate::engine::sys::entry::FnToken;
use crate::engine::trace::remote::CallContext;
use crate::engine::trace::setup::WorkerSetUp;
use crate::engine::worker_nodes::NodeSeat;
use crate::error::load::LoadError;
use crate::tensor::align::aligned;

/// Owner → worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// The first packet. It carries the file descriptor of the memory that owner and worker share. The
    /// answer is [`Answer::Ready`]. `recycled` is how many bytes of memory each of them may keep for large
    /// messages, which is used again. `set_up` is what the worker runs before it is ready.
    Share {
        recycled: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        set_up: Option<WorkerSetUp>,
    },
    /// Load a program. The message carries the file descriptors of its arena.
    Load {
        key: u64,
        loader: FnToken,
        device: String,
        strict: bool,
        memory: MemoryPolicy,
        prewarm: Option<Prewarm>,
        arena: Handle,
        seat: Option<NodeSeat>,
    },
    /// Run a method of a loaded program, which may return a stream. The message carries the arguments.
    /// With `state_of`, the method moves the state of that program to this one.
    Call {
        key: u64,
        handler: FnToken,
        has_items: bool,
        state_of: Option<u64>,
        /// Set if the call is traced.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        trace: Option<CallContext>,
    },
    /// Run several calls of a loaded program, one after the other. `handlers` are their methods, and
    /// `calls` are the index of the method and the number of segments of each. The message carries their
    /// arguments. The number of the request is that of the first call, and the others follow. The answers
    /// are in the shared memory, see `bundle`, and the last packet is [`Answer::Over`].
    Bundle {
        key: u64,
        handlers: Vec<FnToken>,
        calls: Vec<(usize, usize)>,
        /// Empty if no call is traced.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        traces: Vec<Option<CallContext>>,
    },
    /// Free a program.
    Forget { key: u64 },
    /// Look into the shared memory: the worker has said that it waits. Has no answer.
    Wake,
    /// Exit.
    ShutDown,
}

/// Worker → owner.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The process is ready.
    Ready,
    /// The process has started, but cannot work. Contains the reason.
    NotReady(String),
    Loaded(Box<Attached>),
    NotLoaded(LoadError),
    /// An item of the running call, which returns a stream, and its number. The message carries it. Not the
    /// answer: that one follows the last item, and carries nothing.
    Item(u64),
    /// There are items of the stream in the shared memory, and the owner has said that it waits.
    Items,
    /// The call succeeded. The message carries the result.
    Done,
    Failed(MethodError),
    /// There are answers of the running bundle in the shared memory. Not the answer of the bundle.
    Answered,
    /// The bundle is over: each call that was begun has been answered.
    Over,
    /// The program is freed.
    Forgotten,
    /// A request could not be decoded. Contains the reason. The worker keeps running.
    Unreadable(String),
    /// Code in the worker panicked. Contains message and source location. Not an answer: one
    /// follows if the process survives the panic.
    Panics(String),
}

/// Decodes a frame as one of the messages above, for tests with hostile bytes.
pub(crate) fn any(kind: u8, frame: &[u8]) -> std::io::Result<Incoming> {
    let frame = aligned(frame);
    match kind & 3 {
        0 => parse::<(u64, Request)>(&frame).map(|(_, payload)| payload),
        1 => parse::<(u64, Answer)>(&frame).map(|(_, payload)| payload),
        _ => parse::<(String, i32)>(&frame).map(|(_, payload)| payload),
    }
}

#[cfg(test)]
mod tests {
    use serde::Serialize;

    use super::Request;
    use crate::codec::{decode, encode};
    use crate::engine::sys::entry::FnToken;

    /// The requests without traces.
    #[derive(Serialize)]
    enum Untraced {
        Share { recycled: u64 },
        Call { key: u64, handler: FnToken, has_items: bool, state_of: Option<u64> },
        Bundle { key: u64, handlers: Vec<FnToken>, calls: Vec<(usize, usize)> },
    }

    #[test]
    fn requests_that_are_not_traced_say_nothing_of_traces() {
        let handler = FnToken::named("double");
        let (handlers, calls) = (vec![handler.clone()], vec![(0, 1), (0, 2)]);
        let pairs = [
            (Request::Share { recycled: 7, set_up: None }, Untraced::Share { recycled: 7 }),
            (
                Request::Call { key: 3, handler: handler.clone(), has_items: false, state_of: None, trace: None },
                Untraced::Call { key: 3, handler, has_items: false, state_of: None },
            ),
            (
                Request::Bundle { key: 3, handlers: handlers.clone(), calls: calls.clone(), traces: Vec::new() },
                Untraced::Bundle { key: 3, handlers, calls },
            ),
        ];
        for (request, untraced) in pairs {
            let bytes = encode(&request).unwrap();
            assert_eq!(bytes, encode(&untraced).unwrap());
            assert_eq!(format!("{:?}", decode::<Request>(&bytes).unwrap()), format!("{request:?}"));
        }
    }
}
