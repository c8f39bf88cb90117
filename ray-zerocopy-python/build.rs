//! Adds the folders of libpython and LibTorch at build time to the rpath of programs.

fn main() {
    for library in ["DEP_RAY_ZEROCOPY_LIBPYTHON", "DEP_RAY_ZEROCOPY_LIBTORCH"] {
        if let Ok(folder) = std::env::var(library) {
            println!("cargo::rustc-link-arg=-Wl,-rpath,{folder}");
        }
    }
}
