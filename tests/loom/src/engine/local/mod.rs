//! The shared files of the local engine, compiled from their own folder.

mod bundle;
mod item_ring;
pub(crate) mod process;
pub(crate) mod protocol;
pub(crate) mod transport;

mod models;
mod worker_memory;

#[path = "../../../../../ray-zerocopy/src/engine/local/admission.rs"]
mod admission;
#[path = "../../../../../ray-zerocopy/src/engine/local/bundle_conn.rs"]
mod bundle_conn;
#[path = "../../../../../ray-zerocopy/src/engine/local/bundle_replies.rs"]
mod bundle_replies;
#[path = "../../../../../ray-zerocopy/src/engine/local/conn_state.rs"]
mod conn_state;
#[path = "../../../../../ray-zerocopy/src/engine/local/dispatch.rs"]
mod dispatch;
#[path = "../../../../../ray-zerocopy/src/engine/local/inline_wait.rs"]
mod inline_wait;
#[path = "../../../../../ray-zerocopy/src/engine/local/replies.rs"]
mod replies;
#[path = "../../../../../ray-zerocopy/src/engine/local/stream_conn.rs"]
mod stream_conn;
#[path = "../../../../../ray-zerocopy/src/engine/local/supervisor.rs"]
mod supervisor;
#[path = "../../../../../ray-zerocopy/src/engine/local/worker_conn.rs"]
mod worker_conn;
