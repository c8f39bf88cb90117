//! Worker processes that follow scripts.

use crate::engine::settings::Settings;

use super::transport::{Connection, Delivery};

pub(super) struct Process(Connection);

impl Process {
    pub(super) fn start(
        _index: usize,
        settings: &Settings,
        is_wanted: impl Fn() -> bool,
    ) -> Result<(Self, Connection), String> {
        if !is_wanted() {
            return Err("the engine is being shut down".to_owned());
        }
        let connection = settings.processes.lock().pop().ok_or("no process can be started")?;
        Ok((Self(connection.clone()), connection))
    }

    pub(super) fn pid(&self) -> u32 {
        1
    }

    pub(super) fn has_ended(&self) -> bool {
        self.0.has_ended()
    }

    pub(super) fn is_stopped(&self) -> bool {
        false
    }

    pub(super) fn end(&self) -> String {
        self.kill();
        "it ended".to_owned()
    }

    pub(super) fn kill(&self) {
        self.0.end(Delivery::Received);
    }

    pub(super) fn leave(self) {
        self.kill();
    }
}
