//! Where libpython is: for the tests of this crate, and as `DEP_RAY_ZEROCOPY_LIBPYTHON` for the build scripts of programs.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "ray")]
    {
        pyo3_build_config::add_libpython_rpath_link_args();
        if let Some(folder) = pyo3_build_config::get().lib_dir() {
            println!("cargo::metadata=LIBPYTHON={folder}");
        }
    }
}
