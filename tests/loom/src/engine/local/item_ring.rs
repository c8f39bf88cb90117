//! The place of the owner in a stream. Workers of the models send each item as a packet.

#[derive(Debug, Default)]
pub(super) struct ItemReader {
    pub(super) next: u64,
}
