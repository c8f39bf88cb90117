//! Deadlines of calls.

use std::time::{Duration, Instant};

use crate::error::call::{CallError, CallPhase};
use crate::os::sync::now;

/// Time that a call may still wait for space in the queue. `None` without a deadline. `deadline` is
/// the time of the deadline, and how long after the call's start that is.
///
/// # Errors
/// [`CallError::Deadline`] if the deadline has passed.
pub(crate) fn time_to_enter(
    method: &str,
    deadline: Option<(Instant, Duration)>,
) -> Result<Option<Duration>, CallError> {
    let Some((deadline, after)) = deadline else { return Ok(None) };
    let left = deadline.saturating_duration_since(now());
    if left.is_zero() {
        return Err(CallError::Deadline { method: method.to_owned(), after, phase: CallPhase::BeforeQueue });
    }
    Ok(Some(left))
}
