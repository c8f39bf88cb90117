//! Reports: which processes map an arena, and what that costs and saves, from the kernel's figures.
//!
//! | file | what |
//! | --- | --- |
//! | `processes` | the processes of a wrapper, and every process that maps an arena |
//! | `table` | a report as data, and its formatting as a table |
//! | `generation` | how the calls on one generation of weights have ended |
//! | `device_memory` | the memory of GPUs that the driver counts for each process |
//! | `replica` | the copies of an arena on NUMA nodes |
//! | `scan` | all arenas of this machine, with all processes that map them |

mod device_memory;
pub(crate) mod generation;
pub(crate) mod processes;
pub(crate) mod replica;
pub(crate) mod scan;
pub(crate) mod table;

pub use self::generation::GenerationReport;
pub use self::replica::ReplicaReport;
pub use self::scan::{MappedArena, MappingProcess, ProcessRole, Scan, scan};
pub use self::table::{ProcessReport, Report};
pub use crate::engine::call::batch::stats::BatchReport;
pub use crate::engine::queue::report::PoolReport;
