//! Python pickles, parsed as data.
//!
//! A pickle is a program for a stack machine, and Python runs any function that it names. This
//! machine runs nothing: a function call is recorded as a value, `Call`, and the callers recognise
//! the calls that build a tensor. Values are indexes into a table, so nesting, cycles and repeated
//! use of a value never cost more than the bytes that encode them.
//!
//! | file | what |
//! | --- | --- |
//! | `source` | buffered reading of the bytes |
//! | `value` | the values of a pickle |
//! | `machine` | the stack, the memo, and rejected imports |
//! | `opcodes` | the opcodes |

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
    /// It is truncated at this offset of the file.
    Ends(u64),
    /// It is not a pickle, or uses unsupported features.
    Broken(String),
}
