//! A shared library with pipelines in it, which a host loads: its workers cannot be the host.

#![allow(unsafe_code, reason = "it is called from outside of Rust")]

use std::ffi::{CString, c_char};

use ray_zerocopy::LocalPool;

/// Starts workers, which cannot be: why. The text is never freed.
#[unsafe(no_mangle)]
pub extern "C" fn start_workers() -> *mut c_char {
    let text = match LocalPool::builder().workers(1).start() {
        Ok(engine) => format!("{engine:?}"),
        Err(error) => error.to_string(),
    };
    CString::new(text).unwrap_or_default().into_raw()
}
