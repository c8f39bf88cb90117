//! Adds the folder of libpython at build time to the module's rpath. LibTorch is found when the
//! package is imported: see `python/ray_zerocopy/_libtorch.py`.

fn main() {
    if let Ok(folder) = std::env::var("DEP_RAY_ZEROCOPY_LIBPYTHON") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{folder}");
    }
}
