//! Where libpython and LibTorch are: for the tests of this crate, and as `DEP_RAY_ZEROCOPY_LIBPYTHON` and
//! `DEP_RAY_ZEROCOPY_LIBTORCH` for the build scripts of programs. And what LibTorch's bindings lack, in C++.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "ray")]
    {
        pyo3_build_config::add_libpython_rpath_link_args();
        if let Some(folder) = pyo3_build_config::get().lib_dir() {
            println!("cargo::metadata=LIBPYTHON={folder}");
        }
    }
    #[cfg(feature = "libtorch")]
    libtorch();
}

/// Compiles against the LibTorch that `torch-sys` has found.
#[cfg(feature = "libtorch")]
fn libtorch() {
    let sources = "src/tensor/libtorch/sys/shim";
    println!("cargo::rerun-if-changed={sources}");
    let Ok(libraries) = std::env::var("DEP_TCH_LIBTORCH_LIB") else {
        println!("cargo::error=torch-sys does not say where LibTorch is; is another version of it in use?");
        return;
    };
    let include = std::path::Path::new(&libraries).with_file_name("include");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .warnings(false)
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .file(format!("{sources}/shim.cpp"))
        .compile("ray_zerocopy_torch");
    println!("cargo::rustc-link-arg=-Wl,-rpath,{libraries}");
    println!("cargo::metadata=LIBTORCH={libraries}");
}
