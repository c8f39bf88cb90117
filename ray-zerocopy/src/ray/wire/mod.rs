//! Messages between a driver and Ray's workers.
//!
//! | file | what |
//! | --- | --- |
//! | `protocol` | the messages |
//! | `bundle` | several calls in one message, and their answers |
//! | `cancelled` | which calls of a bundle are cancelled |
//! | `frame` | their encoding |
//! | `fingerprint` | detects workers that run another build than the driver |

pub(crate) mod bundle;
pub(crate) mod cancelled;
pub(crate) mod fingerprint;
pub(crate) mod frame;
pub(crate) mod protocol;
