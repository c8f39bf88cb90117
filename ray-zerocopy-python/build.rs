//! Lets programs find libpython where it was when they were built.

fn main() {
    if let Ok(folder) = std::env::var("DEP_RAY_ZEROCOPY_LIBPYTHON") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{folder}");
    }
}
