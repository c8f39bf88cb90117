//! The messages, without content.

use crate::engine::program::Attached;
use crate::engine::served::MethodError;
use crate::error::call::LoadError;

#[derive(Debug, Clone)]
pub(crate) enum Request {
    Load { key: u64, loader: (), device: (), strict: (), memory: (), prewarm: (), arena: (), seat: Option<()> },
    Call { key: u64, handler: (), has_items: bool, state_of: Option<u64>, trace: Option<()> },
    Bundle { key: u64, handlers: Vec<()>, calls: Vec<(usize, usize)>, traces: Vec<Option<()>> },
    Forget { key: u64 },
    Wake,
    ShutDown,
}

#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Loaded(Box<Attached>),
    NotLoaded(LoadError),
    Item(u64),
    Items,
    Done,
    Failed(MethodError),
    Answered,
    Over,
    Forgotten,
    Unreadable(String),
    Panics(String),
}
