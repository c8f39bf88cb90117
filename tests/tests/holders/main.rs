//! Arenas that are found by content: programs without a common parent, kill -9 of any of them, hostile
//! folders, limits.
//!
//! | file | what |
//! | --- | --- |
//! | `program` | a process that asks for an arena, and says what it got |
//! | `found` | which programs get the same memory, and which do not |
//! | `faults` | processes that die, files that change, folders that cannot be used |
//! | `hold` | arenas that are kept for others |
//! | `rounds` | random deaths of makers, waiters and holders |

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod faults;
mod found;
mod hold;
mod program;
mod rounds;
