//! Lets programs find libpython and LibTorch where they were when they were built.

fn main() {
    for library in ["DEP_RAY_ZEROCOPY_LIBPYTHON", "DEP_RAY_ZEROCOPY_LIBTORCH"] {
        if let Ok(folder) = std::env::var(library) {
            println!("cargo::rustc-link-arg=-Wl,-rpath,{folder}");
        }
    }
}
