//! Where libpython and LibTorch are: for the tests of this crate, and as `DEP_RAY_ZEROCOPY_LIBPYTHON` and
//! `DEP_RAY_ZEROCOPY_LIBTORCH` for the build scripts of programs. And what LibTorch's bindings lack, in C++, and the library
//! that passes memory of a GPU to burn, in C.

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
    #[cfg(feature = "cuda")]
    overlay();
}

/// Compiles `overlay.so`, which names the driver as a library that it needs. So that this takes no
/// driver, an empty library stands in for it.
#[cfg(feature = "cuda")]
fn overlay() {
    let source = "src/gpu/sys/overlay.c";
    println!("cargo::rerun-if-changed={source}");
    let Some(out) = std::env::var_os("OUT_DIR").map(std::path::PathBuf::from) else { return };
    // In a folder of its own: cargo lets the loader of tests search this one if C++ was compiled, too.
    let folder = out.join("driver");
    let (driver, empty) = (folder.join("libcuda.so.1"), folder.join("empty.c"));
    if let Err(error) = std::fs::create_dir_all(&folder) {
        println!("cargo::error={} cannot be created: {error}", folder.display());
    }
    let compiler = cc::Build::new().pic(true).get_compiler();
    let library = |soname: &str, source: &std::path::Path, library: &std::path::Path, needed: &[&std::path::Path]| {
        let mut command = compiler.to_command();
        command.args(["-shared", "-fPIC", "-Wl,--no-as-needed", &format!("-Wl,-soname,{soname}"), "-o"]);
        let status = command.arg(library).arg(source).args(needed).status();
        if !status.as_ref().is_ok_and(std::process::ExitStatus::success) {
            println!("cargo::error={} cannot be compiled: {status:?}", source.display());
        }
    };
    if let Err(error) = std::fs::write(&empty, "") {
        println!("cargo::error={} cannot be written: {error}", empty.display());
    }
    library("libcuda.so.1", &empty, &driver, &[]);
    library("libcuda.so", source.as_ref(), &out.join("overlay.so"), &[&driver]);
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
