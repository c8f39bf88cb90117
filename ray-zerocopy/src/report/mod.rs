//! Reports: which processes map an arena, what that costs and saves, by the kernel's own figures.
//!
//! | file | what |
//! | --- | --- |
//! | `processes` | the processes of a wrapper, and every process that maps an arena |
//! | `table` | a report as data, and as the table that it prints |
//! | `scan` | all arenas of this machine, whoever started their processes |

pub(crate) mod processes;
pub(crate) mod scan;
pub(crate) mod table;

pub use self::scan::{MappedArena, MappingProcess, ProcessRole, Scan, scan};
pub use self::table::{ProcessReport, Report};
