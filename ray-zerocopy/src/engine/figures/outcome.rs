//! How a call has ended, as a label of metrics.

use crate::error::call::CallError;

/// How a call has ended. An `Err` that a method returns is a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    Cancelled,
    Deadline,
    Shed,
    ShutDown,
    Panicked,
    WorkerDied,
    Load,
    Start,
    Wire,
    Graph,
    Ray,
    Refused,
    Lost,
}

/// Number of outcomes.
pub(super) const COUNT: usize = 14;

impl Outcome {
    pub(super) const ALL: [Self; COUNT] = [
        Self::Ok,
        Self::Cancelled,
        Self::Deadline,
        Self::Shed,
        Self::ShutDown,
        Self::Panicked,
        Self::WorkerDied,
        Self::Load,
        Self::Start,
        Self::Wire,
        Self::Graph,
        Self::Ray,
        Self::Refused,
        Self::Lost,
    ];

    /// The outcome of a call that ends with this result.
    pub(crate) fn of<T>(result: &Result<T, CallError>) -> Self {
        let Err(error) = result else { return Self::Ok };
        match error {
            CallError::Cancelled { .. } => Self::Cancelled,
            CallError::Deadline { .. } => Self::Deadline,
            CallError::QueueFull { .. } => Self::Shed,
            CallError::ShutDown { .. } => Self::ShutDown,
            CallError::Panicked { .. } => Self::Panicked,
            CallError::WorkerDied { .. } => Self::WorkerDied,
            CallError::Load { .. } => Self::Load,
            CallError::Start(_) => Self::Start,
            CallError::Wire { .. } => Self::Wire,
            CallError::Graph { .. } => Self::Graph,
            #[cfg(feature = "ray")]
            CallError::Ray { .. } => Self::Ray,
            CallError::Unsupported { .. } | CallError::Taken { .. } => Self::Refused,
        }
    }

    /// Its value of the label `outcome`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Cancelled => "cancelled",
            Self::Deadline => "deadline",
            Self::Shed => "shed",
            Self::ShutDown => "shut_down",
            Self::Panicked => "panicked",
            Self::WorkerDied => "worker_died",
            Self::Load => "load",
            Self::Start => "start",
            Self::Wire => "wire",
            Self::Graph => "graph",
            Self::Ray => "ray",
            Self::Refused => "refused",
            Self::Lost => "lost",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Outcome;

    #[test]
    fn outcomes_are_numbered_in_their_order() {
        let mut names: Vec<_> = Outcome::ALL.iter().map(|outcome| outcome.name()).collect();
        assert!(Outcome::ALL.iter().enumerate().all(|(number, outcome)| *outcome as usize == number));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Outcome::ALL.len());
    }
}
