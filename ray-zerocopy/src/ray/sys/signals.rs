//! What this process does at signals, kept from Python and Ray, which install handlers of their own.

use std::ffi::c_int;
use std::mem::MaybeUninit;

/// The signals that have had a meaning before there were real-time signals.
const SIGNALS: std::ops::RangeInclusive<c_int> = 1..=31;

/// What the process does at each signal.
pub(crate) struct Dispositions(Vec<(c_int, libc::sigaction)>);

impl Dispositions {
    /// As they are now.
    pub(crate) fn now() -> Self {
        Self(SIGNALS.filter_map(|signal| Some((signal, disposition(signal)?))).collect())
    }

    /// Restores those that have been replaced by a handler that `is_foreign` knows by its address. Others are the program's
    /// own, which may have been installed meanwhile.
    pub(crate) fn restore(&self, is_foreign: impl Fn(usize) -> bool) {
        for (signal, before) in &self.0 {
            let Some(now) = disposition(*signal) else { continue };
            let handler = now.sa_sigaction;
            if handler != before.sa_sigaction
                && !matches!(handler, libc::SIG_DFL | libc::SIG_IGN)
                && is_foreign(handler)
            {
                // SAFETY: `before` is a disposition that this signal had, as the system has given it: its handler was fit to
                // be called then, and is code that stays mapped, of this program or of a library that nobody unloads.
                unsafe { libc::sigaction(*signal, before, std::ptr::null_mut()) };
            }
        }
    }
}

/// What the process does at a signal; none if there is no such signal.
fn disposition(signal: c_int) -> Option<libc::sigaction> {
    let mut found = MaybeUninit::uninit();
    // SAFETY: asks only, since the new disposition is null; `found` has room for the answer.
    let asked = unsafe { libc::sigaction(signal, std::ptr::null(), found.as_mut_ptr()) };
    // SAFETY: it was written if the call succeeded.
    (asked == 0).then(|| unsafe { found.assume_init() })
}

#[cfg(test)]
mod tests {
    use super::Dispositions;
    use super::disposition;

    extern "C" fn foreign(_: libc::c_int) {}

    #[test]
    fn only_foreign_handlers_are_undone() {
        let before = Dispositions::now();
        let address = foreign as extern "C" fn(libc::c_int) as usize;
        // SAFETY: the handler does nothing, and nobody sends this signal.
        unsafe { libc::signal(libc::SIGURG, address) };
        before.restore(|handler| handler != address);
        assert_eq!(disposition(libc::SIGURG).unwrap().sa_sigaction, address);
        before.restore(|handler| handler == address);
        assert_eq!(disposition(libc::SIGURG).unwrap().sa_sigaction, libc::SIG_DFL);
    }
}
