//! Vulkan: the loader, and a driver of a GPU or Mesa's software renderer.

use std::fs;
use std::path::Path;

const LOADERS: &[&str] =
    &["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib"];
const DRIVERS: &[&str] = &["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d", "/usr/local/share/vulkan/icd.d"];

/// Returns whether both the loader and a driver are installed.
pub(super) fn is_installed() -> bool {
    let contains = |folder: &str, fits: fn(&str) -> bool| {
        let entries = fs::read_dir(Path::new(folder)).into_iter().flatten().flatten();
        entries.into_iter().any(|entry| fits(&entry.file_name().to_string_lossy()))
    };
    LOADERS.iter().any(|folder| contains(folder, |name| name.starts_with("libvulkan.so.1")))
        && DRIVERS.iter().any(|folder| contains(folder, |name| name.ends_with(".json")))
}
