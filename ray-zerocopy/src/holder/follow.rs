//! Following a name: other programs of this user can give this one new weights while it runs.
//!
//! A program registers under a name what it does with new weights, such as a swap. Another one, such as
//! `rzc swap`, sends an arena to each process that follows the name, and gets the answer of each.

use std::error::Error;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::client::{ask_all, ask_patiently};
use super::endpoint::{Answer, Endpoint, Request, endpoint, existing};
use super::key::Key;
use crate::arena::arena::Arena;
use crate::arena::handle::Handle;
use crate::arena::manifest::ArenaId;
use crate::error::holder::HolderError;
use crate::os::sync::Mutex;
use crate::os::sys::process_id::process_id;
use crate::panics;

/// What a program does with new weights. Returns a line of text for the program that sent them.
type Take = Box<dyn FnMut(Arena) -> Result<String, Box<dyn Error + Send + Sync>> + Send>;

/// What a process has registered under a name.
pub(super) struct Registration {
    number: u64,
    name: String,
    /// The weights that it has now, if that is known.
    current: Box<dyn Fn() -> Option<ArenaId> + Send + Sync>,
    /// Locked while it takes weights: others that are sent meanwhile wait.
    take: Mutex<Take>,
}

/// This process follows a name. Dropping it ends that.
#[must_use = "dropping it ends the following"]
pub struct Following {
    number: u64,
    name: String,
    /// A fork has a copy of this, and follows nothing.
    process: u32,
}

impl fmt::Debug for Following {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Following").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let Some(endpoint) = existing().filter(|_| self.process == process_id()) else { return };
        let mut all = endpoint.followers.lock();
        let ended = all.extract_if(.., |known| known.number == self.number).next();
        drop(all);
        // Without the lock: this may drop a wrapper.
        drop(ended);
    }
}

/// A process of this user that follows a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Follower {
    /// The name.
    pub name: String,
    /// The process.
    pub pid: u32,
    /// The weights that it has now, if it is a wrapper that follows.
    pub arena: Option<ArenaId>,
}

/// The answer of a process that follows a name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FollowerSwap {
    /// The process.
    pub pid: u32,
    /// What it says of the new weights, or why it keeps the old ones.
    pub outcome: Result<String, String>,
}

/// Calls a function with each arena that another program of this user sends to a name: by
/// [`swap_followers`], or `rzc swap NAME FILE`. The function decides what becomes of it; an error says why the
/// program keeps what it has. Calls follow one another, on a thread of their own.
///
/// Wrappers have a method for the usual case: [`TaskWrapper::follow`](crate::TaskWrapper::follow),
/// [`Actors::follow`](crate::Actors::follow) and
/// [`JitTaskWrapper::follow`](crate::jit::JitTaskWrapper::follow) swap their weights.
///
/// ```
/// # use burn::{nn::{Linear, LinearConfig}, tensor::{Device, Tensor}};
/// # use ray_zerocopy::{Pipeline, TaskWrapper, Threads, share};
/// use ray_zerocopy::holder::{follow, swap_followers};
/// # #[derive(Pipeline)]
/// # #[pipeline(init = Model::new)]
/// # struct Model { head: Linear }
/// # #[ray_zerocopy::remote]
/// # impl Model {
/// #   #[remote(skip)]
/// #   pub fn new(device: &Device) -> Self { Self { head: LinearConfig::new(4, 2).init(device) } }
/// #   pub fn score(&self, x: Tensor<2>) -> f32 { self.head.forward(x).mean().into_scalar() }
/// # }
/// # fn main() -> ray_zerocopy::Result<()> {
/// # let device = Device::flex();
/// # let name = format!("speech of {}", std::process::id());
///
/// let tasks = TaskWrapper::on(&Threads::new(2), &Model::new(&device))?;
/// let swapping = tasks.clone();
/// let following = follow(&name, move |arena| {
///     let is_finite = |tasks: &TaskWrapper<Model>| Ok(tasks.score(Tensor::ones([1, 4], &Device::flex())).wait().map(drop)?);
///     Ok(swapping.swap_if(arena, is_finite)?.to_string())
/// })?;
///
/// // In another program, or `rzc swap`:
/// let tuned = share(&Model::new(&device))?;
/// let answers = swap_followers(&name, &tuned)?;
/// assert!(answers[0].outcome.is_ok() && tasks.arena().id() == tuned.id());
/// # drop(following);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// If the user's private folder cannot be used.
pub fn follow(
    name: &str,
    take: impl FnMut(Arena) -> Result<String, Box<dyn Error + Send + Sync>> + Send + 'static,
) -> Result<Following, HolderError> {
    register(name, Box::new(|| None), Box::new(take))
}

/// Does the same as [`follow`], for weights whose current arena is known.
pub(crate) fn register(
    name: &str,
    current: Box<dyn Fn() -> Option<ArenaId> + Send + Sync>,
    take: Take,
) -> Result<Following, HolderError> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let endpoint = endpoint();
    endpoint.listening()?;
    let (number, name) = (NUMBER.fetch_add(1, Ordering::Relaxed), name.to_owned());
    let registration = Registration { number, name: name.clone(), current, take: Mutex::new(take) };
    endpoint.followers.lock().push(Arc::new(registration));
    Ok(Following { number, name, process: process_id() })
}

/// Lists the processes of this user that follow a name.
///
/// # Errors
/// If the user's private folder cannot be used.
pub fn followers() -> Result<Vec<Follower>, HolderError> {
    let mut all: Vec<_> = sockets()?.into_iter().flat_map(|(_, found)| found).collect();
    all.sort_by(|a, b| (&a.name, a.pid).cmp(&(&b.name, b.pid)));
    Ok(all)
}

/// The sockets of the processes that follow a name, with the names.
fn sockets() -> Result<Vec<(PathBuf, Vec<Follower>)>, HolderError> {
    let following = |(socket, answer)| match answer {
        Answer::Followers(found) if !found.is_empty() => Some((socket, found)),
        _ => None,
    };
    Ok(ask_all(&Request::Followers)?.into_iter().filter_map(following).collect())
}

/// Sends an arena to each process of this user that follows a name, and returns their answers. Returns when all
/// have answered: a process that swaps waits for the calls that its workers run.
///
/// The processes get the memory of the arena, and keep it when this one ends. See [`follow`] for an example.
///
/// # Errors
/// If no process follows the name, if the arena is in Ray's object store, or if the user's private folder cannot
/// be used.
pub fn swap_followers(name: &str, arena: &Arena) -> Result<Vec<FollowerSwap>, HolderError> {
    let arena = arena.clone().handed_over()?;
    let all = sockets()?;
    let of_name = |found: &&Follower| found.name == name;
    let meant: Vec<_> =
        all.iter().filter_map(|(socket, found)| Some((socket, found.iter().find(of_name)?.pid))).collect();
    if meant.is_empty() {
        let mut names: Vec<_> = all.into_iter().flat_map(|(_, found)| found).map(|follower| follower.name).collect();
        names.sort();
        names.dedup();
        return Err(HolderError::NoFollower { name: name.to_owned(), names });
    }
    let swap = |socket: &Path| {
        let request = Request::Swap { name: name.to_owned(), arena: arena.handle() };
        match ask_patiently(socket, &request, &arena.fds()).map(|received| received.message) {
            Ok(Answer::Swapped(outcomes)) => outcomes,
            Ok(Answer::Refused(reason)) => vec![Err(reason)],
            Ok(other) => vec![Err(format!("it answered {other:?}"))],
            Err(error) => vec![Err(format!("it has not answered: {error}"))],
        }
    };
    Ok(std::thread::scope(|scope| {
        let swapping: Vec<_> = meant.iter().map(|&(socket, pid)| (pid, scope.spawn(move || swap(socket)))).collect();
        let answers = swapping.into_iter().flat_map(|(pid, thread)| {
            let outcomes = thread.join().unwrap_or_else(|_| vec![Err("its thread panicked".to_owned())]);
            outcomes.into_iter().map(move |outcome| FollowerSwap { pid, outcome })
        });
        answers.collect()
    }))
}

impl Endpoint {
    /// What this process follows.
    pub(super) fn following(&self) -> Vec<Follower> {
        let all: Vec<_> = self.followers.lock().iter().map(Arc::clone).collect();
        // Without the lock: the closure may take others, and this may drop the last handle of a wrapper.
        let follower = |known: Arc<Registration>| Follower {
            name: known.name.clone(),
            pid: std::process::id(),
            arena: (known.current)(),
        };
        all.into_iter().map(follower).collect()
    }

    /// Gives an arena to those that follow a name in this process.
    pub(super) fn swap(&'static self, name: &str, arena: &Handle, fds: Vec<OwnedFd>) -> Answer {
        let arena = match Arena::from_ticket(arena, fds) {
            Ok(arena) => arena,
            Err(error) => return Answer::Refused(error.to_string()),
        };
        let key = Key::of_arena(arena.id());
        // Others find it here by its content. An error only means that they do not.
        let offered = |arena| self.offer(key, &format!("the name `{name}`"), &arena).unwrap_or(arena);
        let arena = self.own(&key).unwrap_or_else(|| offered(arena));
        let of_name = |known: &&Arc<Registration>| known.name == name;
        let all: Vec<_> = self.followers.lock().iter().filter(of_name).map(Arc::clone).collect();
        let take = |known: Arc<Registration>| {
            let taken = panics::caught(|| known.take.lock()(arena.clone()).map_err(|error| error.to_string()));
            taken.unwrap_or_else(|panic| Err(format!("it panicked: {panic}")))
        };
        Answer::Swapped(all.into_iter().map(take).collect())
    }
}
