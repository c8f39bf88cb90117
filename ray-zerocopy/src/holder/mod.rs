//! Holders: processes that keep an arena and hand it to other processes of the same user.
//!
//! A program finds an arena by what it was made from: a file and what was done to it, or a name. The
//! first program that asks makes the arena, and all others get the same memory, whether they have a
//! common parent or not. Each of them holds it from then on, so it outlives the process that made it.
//!
//! | file | what |
//! | --- | --- |
//! | `shared` | `Arena::shared`: finds an arena, or makes it |
//! | `source` | what an arena is made from |
//! | `key` | identifies a source, and what is done to it |
//! | `making` | lets one process make the arena of a key while others wait |
//! | `folder` | the user's private folder, and what is in it |
//! | `endpoint` | the socket on which a process answers others |
//! | `client` | asks the endpoints of other processes |
//! | `ticket` | arenas that are found by a secret instead, for exported wrappers |
//! | `follow` | weights that other programs send to the programs that follow a name |
//! | `status` | status reports that other programs ask for |
//! | `hold` | keeps arenas for other programs, up to a limit of memory |
//! | `service` | a holder that systemd starts, and whose memory it keeps during a restart |
//!
//! Both sides of a connection belong to the same user, as the kernel reports it (`SO_PEERCRED`).

mod client;
mod endpoint;
mod folder;
mod follow;
pub(crate) mod hold;
mod key;
mod making;
mod service;
pub(crate) mod shared;
pub(crate) mod source;
mod status;
pub(crate) mod ticket;

pub use self::client::HeldArena;
pub use self::client::held;
pub(crate) use self::follow::register;
pub use self::follow::{Follower, FollowerSwap, Following, follow, followers, swap_followers};
pub use self::hold::{Holder, HolderBuilder};
pub use self::source::SharedSource;
pub(crate) use self::status::{answer_status, ask_for_status};
