//! Variants: arenas that store what differs from their base and borrow the rest.
//!
//! | file | what |
//! | --- | --- |
//! | `speech` | the pipeline of these tests |
//! | `content` | what is stored and what is borrowed |
//! | `files` | saved variants: opened, verified, corrupted, with another base or none |
//! | `memory` | the kernel's figures of workers that map a base and its variants |
//! | `processes` | tickets and deaths |
//! | `graphs` | graphs that are traced on a variant |

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod content;
mod files;
mod graphs;
mod memory;
mod processes;
mod speech;
