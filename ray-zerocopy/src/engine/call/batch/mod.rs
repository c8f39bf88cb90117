//! Batches: calls of one method that wait are put together, and run as one.
//!
//! Independent of engines. A [`Batcher`](batcher::Batcher) keeps the calls that wait, and puts a
//! *ticket* into the queue of the engine: a call without content. The ticket is filled when a worker
//! is free for it, with what waits then. So no call waits while a worker is idle, and batches grow
//! with the load.
//!
//! | file | what |
//! | --- | --- |
//! | `batching` | `Batching`, the limits of a batch |
//! | `batcher` | the calls that wait, and the tickets |
//! | `member` | one call |
//! | `choice` | selects the calls of the next batch |
//! | `message` | messages of several calls in one |
//! | `reply` | takes a batch's result apart, and repeats its calls one by one if it fails |
//! | `stats` | sizes and waiting times, for reports |

pub(crate) mod batcher;
pub(crate) mod batching;
mod choice;
pub(crate) mod member;
pub(crate) mod message;
pub(crate) mod reply;
pub(crate) mod stats;
