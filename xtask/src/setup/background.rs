//! Fetches requirements while steps run that do not need them.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Result, anyhow};

use super::{Requirement, fetch, find, refuse};

/// Requirements that a thread fetches. Each step waits for its own.
#[derive(Default)]
pub(crate) struct Fetching {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Names of those that are not present yet.
    awaited: Vec<&'static str>,
    /// Whether the thread has ended.
    is_over: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

/// Tells the waiting steps that the thread has ended, even after a panic.
struct Over(Arc<Shared>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.change(|state| state.is_over = true);
    }
}

impl Fetching {
    /// Starts to fetch what is missing.
    pub(super) fn start(missing: Vec<&'static Requirement>) -> Self {
        Self::start_with(missing, fetch)
    }

    fn start_with(
        missing: Vec<&'static Requirement>,
        fetch: impl FnOnce(&[&'static Requirement], &dyn Fn(&'static str)) -> Result<()> + Send + 'static,
    ) -> Self {
        let awaited = missing.iter().map(|requirement| requirement.name).collect();
        let shared = Arc::new(Shared { state: Mutex::new(State { awaited, is_over: false }), changed: Condvar::new() });
        let over = Over(Arc::clone(&shared));
        let thread = thread::spawn(move || {
            let has_come = |name| over.0.change(|state| state.awaited.retain(|awaited| *awaited != name));
            fetch(&missing, &has_come)
        });
        Self { shared, thread: Some(thread) }
    }

    /// Waits until these requirements are present.
    ///
    /// Fails if one of them cannot be fetched, and at once if the setup has failed before.
    pub(crate) fn wait_for(&mut self, names: &[&str]) -> Result<()> {
        let mut state = self.shared.lock();
        while !state.is_over && names.iter().any(|name| state.awaited.contains(name)) {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let is_over = state.is_over;
        drop(state);
        if is_over {
            self.end()?;
        }
        let state = self.shared.lock();
        let missing = names.iter().filter(|name| state.awaited.contains(name)).map(|name| find(name));
        refuse(&missing.collect::<Result<Vec<_>>>()?)
    }

    /// Waits until all are fetched.
    fn end(&mut self) -> Result<()> {
        self.thread.take().map_or(Ok(()), |thread| thread.join().map_err(|_| anyhow!("the setup panicked"))?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use anyhow::bail;

    use super::{Fetching, find};

    #[test]
    fn step_waits_for_what_it_needs_alone() {
        let missing = vec![find("typos").unwrap(), find("models").unwrap()];
        let (goes_on, waits) = channel();
        let mut fetching = Fetching::start_with(missing, move |_, has_come| {
            has_come("typos");
            waits.recv()?;
            has_come("models");
            Ok(())
        });
        fetching.wait_for(&["typos", "clippy"]).unwrap();
        goes_on.send(()).unwrap();
        fetching.wait_for(&["models"]).unwrap();
        Fetching::default().wait_for(&["models"]).unwrap();
    }

    #[test]
    fn failed_setup_ends_the_next_step_and_those_that_need_it() {
        let missing = vec![find("typos").unwrap(), find("models").unwrap()];
        let mut fetching = Fetching::start_with(missing, |_, has_come| {
            has_come("typos");
            bail!("there is no network")
        });
        assert_eq!(fetching.wait_for(&["models"]).unwrap_err().to_string(), "there is no network");
        assert_eq!(
            fetching.wait_for(&["models"]).unwrap_err().to_string(),
            "missing: models; run `cargo xtask setup models`"
        );
        fetching.wait_for(&["typos"]).unwrap();
    }

    #[test]
    fn panic_of_the_setup_is_an_error() {
        let mut fetching = Fetching::start_with(vec![find("typos").unwrap()], |_, _| panic!("a panic of a test"));
        assert_eq!(fetching.wait_for(&["typos"]).unwrap_err().to_string(), "the setup panicked");
    }
}
