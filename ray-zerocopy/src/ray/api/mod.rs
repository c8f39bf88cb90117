//! API for clusters, objects, tasks and actors.
//!
//! | file | what |
//! | --- | --- |
//! | `cluster`, `builder` | connects to a cluster, or starts one |
//! | `object` | objects of the store, and results |
//! | `task`, `actor` | plain functions as tasks, and actors |
//! | `options` | resources of a task or an actor |
//! | `stored` | the arenas in the store, by their content |
//! | `trampoline` | runs functions of known types in a worker |

pub(crate) mod actor;
pub(crate) mod builder;
pub(crate) mod cluster;
pub(crate) mod object;
pub(crate) mod options;
pub(crate) mod stored;
pub(crate) mod task;
pub(crate) mod trampoline;
