//! Sets the rpaths of libpython and LibTorch for the test programs.

fn main() {
    for library in ["DEP_RAY_ZEROCOPY_LIBPYTHON", "DEP_RAY_ZEROCOPY_LIBTORCH"] {
        if let Ok(folder) = std::env::var(library) {
            println!("cargo::rustc-link-arg=-Wl,-rpath,{folder}");
        }
    }
}
