//! Signal dispositions of this process, which Python and Ray replace with their own handlers.

use std::ffi::c_int;
use std::mem::MaybeUninit;

/// All signals except real-time signals.
const SIGNALS: std::ops::RangeInclusive<c_int> = 1..=31;

/// Dispositions of the process by signal.
pub(crate) struct Dispositions(Vec<(c_int, libc::sigaction)>);

impl Dispositions {
    /// Reads the current dispositions.
    pub(crate) fn now() -> Self {
        Self(SIGNALS.filter_map(|signal| Some((signal, disposition(signal)?))).collect())
    }

    /// Restores the signals whose handler has been replaced by one for which `is_foreign` returns
    /// `true`. Other handlers belong to the program, which may have installed them in the meantime.
    pub(crate) fn restore(&self, is_foreign: impl Fn(usize) -> bool) {
        for (signal, before) in &self.0 {
            let Some(now) = disposition(*signal) else { continue };
            let handler = now.sa_sigaction;
            if handler != before.sa_sigaction
                && !matches!(handler, libc::SIG_DFL | libc::SIG_IGN)
                && is_foreign(handler)
            {
                // SAFETY: `before` is a disposition that this signal had, as returned by the
                // kernel: its handler was valid then, and is code that stays mapped, of this
                // program or of a library that is never unloaded.
                unsafe { libc::sigaction(*signal, before, std::ptr::null_mut()) };
            }
        }
    }
}

/// Returns the disposition of a signal, or `None` if there is no such signal.
fn disposition(signal: c_int) -> Option<libc::sigaction> {
    let mut found = MaybeUninit::uninit();
    // SAFETY: only reads the disposition, since the new one is null; `found` has room for it.
    let status = unsafe { libc::sigaction(signal, std::ptr::null(), found.as_mut_ptr()) };
    // SAFETY: `found` was written if the call succeeded.
    (status == 0).then(|| unsafe { found.assume_init() })
}

#[cfg(test)]
mod tests {
    use super::Dispositions;
    use super::disposition;

    extern "C" fn foreign(_: libc::c_int) {}

    #[test]
    fn only_foreign_handlers_are_replaced() {
        let before = Dispositions::now();
        let address = foreign as extern "C" fn(libc::c_int) as usize;
        // SAFETY: the handler does nothing, and this signal is not sent.
        unsafe { libc::signal(libc::SIGURG, address) };
        before.restore(|handler| handler != address);
        assert_eq!(disposition(libc::SIGURG).unwrap().sa_sigaction, address);
        before.restore(|handler| handler == address);
        assert_eq!(disposition(libc::SIGURG).unwrap().sa_sigaction, libc::SIG_DFL);
    }
}
