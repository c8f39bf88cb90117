//! Messages and locations of panics.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

/// Returns the message of a panic's payload.
pub(crate) fn message(payload: &(dyn Any + Send)) -> String {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (None, Some(text)) => text.clone(),
        (None, None) => "a panic whose payload is not text".to_owned(),
    }
}

thread_local! {
    static LOCATION: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Installs, once, the panic hook that records locations. Does nothing on a panicking thread, where
/// installing a hook would panic again.
pub(crate) fn prepare() {
    static HOOK: Once = Once::new();
    if std::thread::panicking() {
        return;
    }
    HOOK.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            LOCATION.set(info.location().map(|location| format!("{}:{}", location.file(), location.line())));
            previous(info);
        }));
    });
}

/// Runs `call`. Converts a panic into an error with its message and source location.
pub(crate) fn caught<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    prepare();
    LOCATION.set(None);
    catch_unwind(AssertUnwindSafe(call)).map_err(|payload| match LOCATION.take() {
        Some(location) => format!("{} ({location})", message(&*payload)),
        None => message(&*payload),
    })
}

#[cfg(test)]
mod tests {
    use super::caught;

    #[test]
    fn a_panic_has_message_and_place() {
        let error = caught(|| panic!("the {} is gone", "file")).unwrap_err();
        assert!(error.starts_with("the file is gone ("), "{error}");
        assert!(error.contains("panics.rs:"), "{error}");
        assert_eq!(caught(|| 7), Ok(7));
    }
}
