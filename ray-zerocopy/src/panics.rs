//! What a panic said.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

/// The message of a panic's payload.
pub(crate) fn message(payload: &(dyn Any + Send)) -> String {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (None, Some(text)) => text.clone(),
        (None, None) => "a panic whose payload is not text".to_owned(),
    }
}

thread_local! {
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Sets the hook that notes where a panic happens, once. Does nothing on a thread that panics, where it would be a second panic.
pub(crate) fn prepare() {
    static HOOK: Once = Once::new();
    if std::thread::panicking() {
        return;
    }
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PLACE.set(info.location().map(|place| format!("{}:{}", place.file(), place.line())));
            before(info);
        }));
    });
}

/// Runs `call`; a panic is an error with its message and its place in the source.
pub(crate) fn caught<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    prepare();
    PLACE.set(None);
    catch_unwind(AssertUnwindSafe(call)).map_err(|payload| match PLACE.take() {
        Some(place) => format!("{} ({place})", message(&*payload)),
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
