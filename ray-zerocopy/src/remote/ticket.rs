//! Tickets: plain data with which a process opens the arena of another process.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::actor::ActorWrapper;
use crate::arena::manifest::ArenaId;
use crate::arena::memory::policy::MemoryPolicy;
use crate::error::ticket::TicketError;
use crate::holder;
use crate::pipeline::rebuild::Root;

/// An exported [`ActorWrapper`]: plain data, for a process of the same machine and user. See
/// [`ActorWrapper::export`].
///
/// Serialising and deserialising a ticket does no I/O. The serialised form is that of the wrapper.
///
/// ```
/// # use burn::{nn::{Linear, LinearConfig}, tensor::Device};
/// # use ray_zerocopy::{ActorWrapper, Pipeline, Ticket};
/// # #[derive(Pipeline)]
/// # #[pipeline(init = Model::new)]
/// # struct Model { head: Linear }
/// # impl Model { fn new(device: &Device) -> Self { Self { head: LinearConfig::new(4, 2).init(device) } } }
/// let shared = ActorWrapper::new(&Model::new(&Device::flex()))?;
/// let text = serde_json::to_string(&shared.export()?).unwrap();
///
/// // In another process:
/// let ticket: Ticket<Model> = serde_json::from_str(&text).unwrap();
/// let model = ticket.open()?.load()?;
/// assert!(model.copied().is_empty());
/// # Ok::<(), ray_zerocopy::Error>(())
/// ```
pub struct Ticket<P> {
    data: TicketData,
    pipeline: PhantomData<fn() -> P>,
}

/// The serialised form of a ticket, and of a wrapper.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename = "Handle")]
pub(super) struct TicketData {
    pub ticket: holder::ticket::Ticket,
    pub arena: ArenaId,
    pub device: String,
    pub strict: bool,
    pub memory: MemoryPolicy,
    pub threads: Option<usize>,
    pub queue: usize,
    pub deadline: Option<Duration>,
}

impl<P> Ticket<P> {
    pub(super) fn new(data: TicketData) -> Self {
        Self { data, pipeline: PhantomData }
    }

    /// The arena that the ticket is for.
    pub fn arena_id(&self) -> ArenaId {
        self.data.arena
    }
}

impl<P: Root> Ticket<P> {
    /// Fetches the arena from the process that shared it, and verifies all of its checksums. A
    /// process that already has the arena does not map and verify it again.
    ///
    /// # Errors
    /// If the other process has ended, has withdrawn the arena, or belongs to another user, or if
    /// the arena is corrupted.
    pub fn open(&self) -> Result<ActorWrapper<P>, TicketError> {
        ActorWrapper::redeem(&self.data)
    }
}

impl<P> Clone for Ticket<P> {
    fn clone(&self) -> Self {
        Self::new(self.data.clone())
    }
}

/// Prints without the secret, which does not belong in logs.
impl<P> fmt::Debug for Ticket<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("Ticket");
        text.field("arena", &self.data.arena).field("device", &self.data.device).finish_non_exhaustive()
    }
}

impl<P> Serialize for Ticket<P> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.data.serialize(serializer)
    }
}

impl<'de, P> Deserialize<'de> for Ticket<P> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        TicketData::deserialize(deserializer).map(Self::new)
    }
}

/// [Exports](ActorWrapper::export) the wrapper, and serialises its ticket.
impl<P> Serialize for ActorWrapper<P> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.export().map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

/// [Opens](Ticket::open) a deserialised ticket.
impl<'de, P: Root> Deserialize<'de> for ActorWrapper<P> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ticket::deserialize(deserializer)?.open().map_err(serde::de::Error::custom)
    }
}
