//! Lets Python find libpython where it was when the module was built. LibTorch is found when the package is imported: see
//! `python/ray_zerocopy/_libtorch.py`.

fn main() {
    if let Ok(folder) = std::env::var("DEP_RAY_ZEROCOPY_LIBPYTHON") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{folder}");
    }
}
