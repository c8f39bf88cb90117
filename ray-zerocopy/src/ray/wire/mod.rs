//! Messages between a driver and Ray's workers.
//!
//! | file | what |
//! | --- | --- |
//! | `protocol` | the messages |
//! | `frame` | their encoding |
//! | `fingerprint` | detects workers that run another build than the driver |

pub(crate) mod fingerprint;
pub(crate) mod frame;
pub(crate) mod protocol;
