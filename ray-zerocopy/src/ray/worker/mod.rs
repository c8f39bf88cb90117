//! The worker side: a Python module that Ray's workers import, and the execution of requests.
//!
//! | file | what |
//! | --- | --- |
//! | `module` | the Python module, and callbacks from Ray |
//! | `serve` | executes requests |
//! | `bundle` | several calls of an actor in one request |
//! | `stream` | calls that return streams |
//! | `cancellation` | whether Ray has cancelled the call that runs |

mod bundle;
mod cancellation;
pub(crate) mod module;
pub(crate) mod serve;
mod stream;
