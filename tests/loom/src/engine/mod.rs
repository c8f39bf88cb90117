//! Replaces `ray-zerocopy/src/engine`: what the local engine needs of it.

pub(crate) mod call;
#[path = "../../../../ray-zerocopy/src/engine/deadline.rs"]
pub(crate) mod deadline;
pub(crate) mod local;
#[path = "../../../../ray-zerocopy/src/engine/pool_size.rs"]
pub(crate) mod pool_size;
pub(crate) mod queue;

pub(crate) mod figures {
    //! No figures are kept.

    pub(crate) mod workers {
        pub(in crate::engine) fn started(_engine: &'static str, _is_restart: bool) {}

        pub(in crate::engine) fn ended(_engine: &'static str, _is_expected: bool) {}
    }
}

pub(crate) mod spin {
    //! A thread of a model looks once.

    pub(crate) fn spin_and_yield(has_happened: impl Fn() -> bool) -> bool {
        has_happened()
    }

    #[derive(Default)]
    pub(crate) struct SpinningPolls;

    impl SpinningPolls {
        pub(crate) fn spin(&self, has_happened: impl Fn() -> bool) -> bool {
            has_happened()
        }
    }
}

pub(crate) mod settings {
    //! A pool's settings, and the scripts of its processes.

    use std::time::Duration;

    use super::local::transport::Connection;
    use super::pool_size::PoolSize;
    use crate::os::sync::Mutex;

    pub(crate) struct Settings {
        pub(crate) workers: PoolSize,
        pub(crate) idle: Duration,
        pub(crate) memory_reserve: u64,
        pub(crate) queue: usize,
        pub(crate) start_timeout: Duration,
        /// The processes that can be started, in reverse order. After the last of them, no process
        /// can be started any more.
        pub(crate) processes: Mutex<Vec<Connection>>,
    }
}

pub(crate) mod program {
    //! A program without content.

    pub(crate) struct Program {
        pub(crate) key: u64,
        pub(crate) arena: Arena,
        pub(crate) loader: (),
        pub(crate) device: (),
        pub(crate) strict: (),
        pub(crate) memory: (),
        pub(crate) prewarm: (),
    }

    pub(crate) struct Arena;

    impl Arena {
        pub(crate) fn handle(&self) {}

        pub(crate) fn fds(&self) -> Vec<()> {
            Vec::new()
        }
    }

    #[derive(Debug, Clone)]
    pub(crate) struct Attached;
}

pub(crate) mod worker_nodes {
    //! Workers on one node.

    use super::program::{Arena, Program};
    use super::settings::Settings;

    pub(crate) struct WorkerNodes;

    pub(crate) struct Copy {
        pub(crate) arena: Arena,
        pub(crate) seat: Option<()>,
    }

    impl WorkerNodes {
        pub(crate) fn of(_settings: &Settings) -> Self {
            Self
        }

        pub(crate) fn copy_for(&self, _program: &Program, _index: usize) -> Copy {
            Copy { arena: Arena, seat: None }
        }
    }
}

pub(crate) mod message {
    //! Messages without content.

    #[derive(Default)]
    pub(crate) struct Outgoing {
        pub(crate) segments: Vec<Vec<u8>>,
    }

    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Incoming;
}

pub(crate) mod frame {
    //! A packet that was never written as bytes.

    use super::local::protocol::Request;
    use super::message::Outgoing;

    pub(crate) struct Packet {
        pub(crate) serial: u64,
        pub(crate) request: Request,
    }

    impl Packet {
        pub(crate) fn new((serial, request): &(u64, Request), _payload: &Outgoing) -> std::io::Result<Self> {
            Ok(Self { serial: *serial, request: request.clone() })
        }

        pub(crate) fn of((serial, request): &(u64, Request), _segments: &[&[u8]]) -> std::io::Result<Self> {
            Ok(Self { serial: *serial, request: request.clone() })
        }
    }
}

pub(crate) mod served {
    //! Errors of a method.

    use crate::error::call::{CallError, CallPart, Worker};

    #[derive(Debug, Clone)]
    pub(crate) enum MethodError {
        Panicked(String),
        Wire { what: String, reason: String },
        Graph(String),
    }

    impl MethodError {
        pub(crate) fn of(self, method: &str, worker: Worker) -> CallError {
            let method = method.to_owned();
            match self {
                Self::Panicked(message) => CallError::Panicked { method, worker, message },
                Self::Wire { what, reason } => CallError::Wire { method, part: CallPart::named(&what), reason },
                Self::Graph(error) => CallError::Graph { method, error },
            }
        }
    }
}
