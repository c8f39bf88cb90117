//! Shared code of the fuzz targets.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, Once, PoisonError};

/// Message and location of the last panic.
static PLACE: Mutex<Option<String>> = Mutex::new(None);

/// Runs a target. A panic that leaves it ends the process; one that the library catches does not.
///
/// burn panics on a dtype that a device does not support, and the library converts the panic to an
/// error. libFuzzer's own panic hook would abort the process before that.
pub fn run(target: impl FnOnce()) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            *PLACE.lock().unwrap_or_else(PoisonError::into_inner) = Some(info.to_string());
        }));
    });
    if catch_unwind(AssertUnwindSafe(target)).is_err() {
        eprintln!("{}", PLACE.lock().unwrap_or_else(PoisonError::into_inner).as_deref().unwrap_or("a panic"));
        std::process::abort();
    }
}
