//! Python's pickles, read as data.
//!
//! A pickle is a program for a stack machine, and Python runs whatever it names. This machine runs nothing: a call of a
//! function is noted as a value, `Call`, and it is for others to recognise those that make a tensor. Values are numbers
//! of a table, so neither nesting nor cycles nor a value that is used a thousand times cost more than the bytes that
//! say so.
//!
//! | file | what |
//! | --- | --- |
//! | `source` | the bytes, some at a time |
//! | `value` | what a pickle holds |
//! | `machine` | the stack, the memo, and what is refused |
//! | `opcodes` | what each byte does |

pub(crate) mod machine;
pub(crate) mod opcodes;
pub(crate) mod source;
pub(crate) mod value;

pub(super) use self::opcodes::read;
pub(super) use self::value::Value;

/// Why a pickle cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PickleError {
    /// It imports something that runs code.
    Unsafe(String),
    /// It ends at this byte of the file, too early.
    Ends(u64),
    /// It is not a pickle, or more than is read.
    Broken(String),
}
