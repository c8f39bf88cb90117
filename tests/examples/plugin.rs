//! A shared library with pipelines, loaded by a host program. The host cannot serve as its workers.

#![allow(unsafe_code, reason = "it is called from outside of Rust")]

use std::ffi::{CString, c_char};

use ray_zerocopy::LocalPool;

/// Tries to start workers, and returns the error as text. The text is never freed.
#[unsafe(no_mangle)]
pub extern "C" fn start_workers() -> *mut c_char {
    let text = match LocalPool::builder().workers(1).start() {
        Ok(engine) => format!("{engine:?}"),
        Err(error) => error.to_string(),
    };
    CString::new(text).unwrap_or_default().into_raw()
}
