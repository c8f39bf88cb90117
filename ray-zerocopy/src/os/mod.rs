//! What this crate asks of the operating system beside memory maps: files that are written whole, and the limits that refuse
//! something, named.
//!
//! | file | what |
//! | --- | --- |
//! | `replace` | writes a file that appears when it is complete |
//! | `temporary` | the files that have a name before they are complete, for programs that end by a signal |
//! | `per_process` | a value that a fork has one of its own of |
//! | `limits` | which limit is behind an error of a system call |

pub(crate) mod errno_hint;
pub(crate) mod fork;
pub(crate) mod limits;
pub(crate) mod per_process;
pub(crate) mod procfs;
pub(crate) mod replace;
pub(crate) mod smaps;
pub(crate) mod sys;
pub(crate) mod temporary;
pub(crate) mod title;
