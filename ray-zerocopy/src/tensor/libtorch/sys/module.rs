//! TorchScript modules.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::ptr::NonNull;

use super::ffi;
use super::tensor::Tensor;

/// A TorchScript module. Its methods may change its buffers, so one thread at a time calls them.
pub(crate) struct Module(NonNull<ffi::Opaque>);

// SAFETY: a module has counted references to what it holds, whose counts are atomic, and no state of the thread that made it.
unsafe impl Send for Module {}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: the module is this value's own and is not used any more.
        unsafe { ffi::rz_module_free(self.0.as_ptr()) };
    }
}

/// What a tensor is to the module that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Parameter,
    Buffer,
    Attribute,
}

/// A tensor of a module.
pub(crate) struct Held {
    pub path: String,
    pub role: Role,
    pub tensor: Tensor,
}

/// An argument of a method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Argument {
    pub name: String,
    /// As TorchScript writes it: `Tensor`, `Optional[int]`, `List[Tensor]`.
    pub kind: String,
    pub default: bool,
}

/// A method of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Method {
    pub name: String,
    pub arguments: Vec<Argument>,
    pub returns: String,
}

/// Something that a method does to the module's own tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Write {
    /// Which tensor, or what holds it; none if nobody knows.
    pub path: Option<String>,
    /// Which method does what: `forward writes into it`.
    pub what: String,
}

/// What callbacks put together. A panic may not go through C++: it is caught and goes on here.
struct Gathered<T>(RefCell<Parts<T>>);

struct Parts<T> {
    all: Vec<T>,
    panic: Option<Box<dyn std::any::Any + Send>>,
}

impl<T> Gathered<T> {
    fn new() -> Self {
        Self(RefCell::new(Parts { all: Vec::new(), panic: None }))
    }

    fn context(&self) -> *mut c_void {
        std::ptr::from_ref(self).cast_mut().cast()
    }

    /// # Safety
    /// `context` comes from [`context`](Self::context) of one of this type that lives as long as `'a`.
    unsafe fn of<'a>(context: *mut c_void) -> &'a Self {
        // SAFETY: by the promise of the caller. Shared, because the shim calls back from within a call that holds a reference.
        unsafe { &*context.cast::<Self>() }
    }

    fn add(&self, make: impl FnOnce() -> T) {
        match catch_unwind(AssertUnwindSafe(make)) {
            Ok(made) => self.0.borrow_mut().all.push(made),
            Err(panic) => self.0.borrow_mut().panic = Some(panic),
        }
    }

    fn finish(self) -> Vec<T> {
        let Parts { all, panic } = self.0.into_inner();
        if let Some(panic) = panic {
            std::panic::resume_unwind(panic);
        }
        all
    }
}

/// The release of LibTorch that this program was compiled against: `2.9.1`.
#[cfg(feature = "ray")]
pub(crate) fn version() -> String {
    // SAFETY: the shim has no state, and needs none.
    let version = unsafe { ffi::rz_version() };
    // SAFETY: it is a string of the program, which stays.
    unsafe { text(version) }
}

/// # Safety
/// `text` is a string that ends with a zero and lives.
unsafe fn text(text: *const c_char) -> String {
    // SAFETY: by the promise of the caller.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

fn c_string(text: &str) -> Result<CString, String> {
    CString::new(text).map_err(|_| format!("{text:?} has a zero in it"))
}

impl Module {
    fn made(make: impl FnOnce(*mut *mut ffi::Opaque) -> ffi::Message) -> Result<Self, String> {
        let mut module = std::ptr::null_mut();
        make(&mut module).check()?;
        NonNull::new(module).map(Self).ok_or_else(|| "LibTorch has given no module".to_owned())
    }

    /// Reads a module from a file, all of it.
    ///
    /// # Errors
    /// What LibTorch says.
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        let path = c_string(&path.to_string_lossy())?;
        // SAFETY: the path ends with a zero and lives during the call.
        Self::made(|module| unsafe { ffi::rz_open(path.as_ptr(), module) })
    }

    /// Reads a module from memory, all of it.
    ///
    /// # Errors
    /// What LibTorch says.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        // SAFETY: the bytes are as many as is said and live during the call.
        Self::made(|module| unsafe { ffi::rz_load(bytes.as_ptr().cast(), bytes.len(), module) })
    }

    /// Writes the module into memory.
    ///
    /// # Errors
    /// What LibTorch says.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, String> {
        unsafe extern "C" fn told(context: *mut c_void, bytes: *const c_char, len: usize) {
            // SAFETY: `context` is the one below.
            let gathered = unsafe { Gathered::<Vec<u8>>::of(context) };
            // SAFETY: the bytes are as many as is said and live during this call.
            let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), len) };
            gathered.add(|| bytes.to_vec());
        }
        let gathered = Gathered::<Vec<u8>>::new();
        // SAFETY: the module lives, and so does the context.
        unsafe { ffi::rz_save(self.0.as_ptr(), gathered.context(), told) }.check()?;
        Ok(gathered.finish().concat())
    }

    /// All tensors that the module holds, in parameters, buffers and other attributes.
    ///
    /// # Errors
    /// What LibTorch says.
    pub(crate) fn tensors(&self) -> Result<Vec<Held>, String> {
        unsafe extern "C" fn told(context: *mut c_void, name: *const c_char, role: c_int, tensor: *mut ffi::Opaque) {
            // SAFETY: `context` is the one below.
            let gathered = unsafe { Gathered::<Result<Held, String>>::of(context) };
            // SAFETY: the shim's string lives during this call.
            let path = unsafe { text(name) };
            gathered.add(|| {
                let role = match role {
                    0 => Role::Parameter,
                    1 => Role::Buffer,
                    _ => Role::Attribute,
                };
                Tensor::new(tensor).map(|tensor| Held { path, role, tensor })
            });
        }
        let gathered = Gathered::<Result<Held, String>>::new();
        // SAFETY: the module lives, and so does the context.
        unsafe { ffi::rz_tensors(self.0.as_ptr(), gathered.context(), told) }.check()?;
        gathered.finish().into_iter().collect()
    }

    /// The methods.
    ///
    /// # Errors
    /// What LibTorch says.
    pub(crate) fn methods(&self) -> Result<Vec<Method>, String> {
        type Told = (String, String, String, bool);
        unsafe extern "C" fn told(
            context: *mut c_void,
            method: *const c_char,
            name: *const c_char,
            kind: *const c_char,
            default: bool,
        ) {
            // SAFETY: `context` is the one below.
            let gathered = unsafe { Gathered::<Told>::of(context) };
            // SAFETY: the shim's strings live during this call, all three of them.
            let [method, name, kind] = [method, name, kind].map(|told| unsafe { text(told) });
            gathered.add(|| (method, name, kind, default));
        }
        let gathered = Gathered::<Told>::new();
        // SAFETY: the module lives, and so does the context.
        unsafe { ffi::rz_methods(self.0.as_ptr(), gathered.context(), told) }.check()?;
        let mut methods: Vec<Method> = Vec::new();
        for (method, name, kind, default) in gathered.finish() {
            match methods.last_mut() {
                // An empty name begins a method.
                Some(last) if !name.is_empty() => last.arguments.push(Argument { name, kind, default }),
                _ => methods.push(Method { name: method, arguments: Vec::new(), returns: kind }),
            }
        }
        Ok(methods)
    }

    /// How many bytes the tensors have that are constants of the code.
    ///
    /// # Errors
    /// What LibTorch says.
    pub(crate) fn constants(&self) -> Result<u64, String> {
        let mut len = 0;
        // SAFETY: the module lives, and there is room for the number.
        unsafe { ffi::rz_constants(self.0.as_ptr(), &mut len) }.check()?;
        Ok(len as u64)
    }

    /// What the methods do to tensors that the module holds, by LibTorch's analysis of aliases. It does not see
    /// operations that give what they were given and do not say so in their signatures.
    ///
    /// # Errors
    /// What LibTorch says.
    pub(crate) fn writes(&self) -> Result<Vec<Write>, String> {
        unsafe extern "C" fn told(context: *mut c_void, path: *const c_char, what: *const c_char) {
            // SAFETY: `context` is the one below.
            let gathered = unsafe { Gathered::<Write>::of(context) };
            // SAFETY: the shim's strings live during this call, both of them.
            let [path, what] = [path, what].map(|told| unsafe { text(told) });
            gathered.add(|| Write { path: Some(path).filter(|path| !path.is_empty()), what });
        }
        let gathered = Gathered::<Write>::new();
        // SAFETY: the module lives, and so does the context.
        unsafe { ffi::rz_writes(self.0.as_ptr(), gathered.context(), told) }.check()?;
        Ok(gathered.finish())
    }

    /// Puts tensors in the place of the module's own, by their paths. Returns the paths that it has used.
    ///
    /// # Errors
    /// What LibTorch says.
    pub(crate) fn replace(&self, tensors: &HashMap<String, Tensor>) -> Result<Vec<String>, String> {
        struct Looked<'a> {
            tensors: &'a HashMap<String, Tensor>,
            used: RefCell<Vec<String>>,
        }
        unsafe extern "C" fn find(context: *mut c_void, path: *const c_char) -> *mut ffi::Opaque {
            // SAFETY: `context` is the one below, which lives.
            let looked = unsafe { &*context.cast::<Looked<'_>>() };
            // SAFETY: the shim's string lives during this call.
            let path = unsafe { text(path) };
            match looked.tensors.get(&path) {
                Some(tensor) => {
                    looked.used.borrow_mut().push(path);
                    tensor.as_ptr()
                }
                None => std::ptr::null_mut(),
            }
        }
        let looked = Looked { tensors, used: RefCell::new(Vec::new()) };
        let context = std::ptr::from_ref(&looked).cast_mut().cast();
        // SAFETY: the module, the tensors and the context live. The shim takes references to the tensors, not the tensors.
        unsafe { ffi::rz_replace(self.0.as_ptr(), context, find) }.check()?;
        Ok(looked.used.into_inner())
    }

    /// Takes the elements out of tensors, by their paths.
    ///
    /// # Errors
    /// What LibTorch says.
    pub(crate) fn empty(&self, held: &[&Held]) -> Result<(), String> {
        let empty = held.iter().map(|held| Ok((held.path.clone(), held.tensor.emptied()?)));
        self.replace(&empty.collect::<Result<_, String>>()?).map(drop)
    }

    /// Moves what the module holds to a GPU.
    ///
    /// # Errors
    /// What LibTorch says.
    pub(crate) fn upload(&mut self, gpu: usize) -> Result<(), String> {
        // SAFETY: the module lives, and nobody else uses it.
        unsafe { ffi::rz_upload(self.0.as_ptr(), number(gpu)) }.check()
    }

    /// Calls a method. Inputs are copied, since a method may write into them; outputs are in host memory.
    ///
    /// # Errors
    /// What LibTorch says.
    pub(crate) fn call(
        &mut self,
        method: &str,
        inputs: &[(&str, Tensor)],
        gpu: Option<usize>,
    ) -> Result<Vec<(String, Tensor)>, String> {
        unsafe extern "C" fn told(context: *mut c_void, name: *const c_char, tensor: *mut ffi::Opaque) {
            // SAFETY: `context` is the one below.
            let gathered = unsafe { Gathered::<Result<(String, Tensor), String>>::of(context) };
            // SAFETY: the shim's string lives during this call.
            let name = unsafe { text(name) };
            gathered.add(|| Tensor::new(tensor).map(|tensor| (name, tensor)));
        }
        let method = c_string(method)?;
        let owned = inputs.iter().map(|(name, _)| c_string(name)).collect::<Result<Vec<_>, _>>()?;
        let names: Vec<_> = owned.iter().map(|name| name.as_ptr()).collect();
        let tensors: Vec<_> = inputs.iter().map(|(_, tensor)| tensor.as_ptr()).collect();
        let gathered = Gathered::<Result<(String, Tensor), String>>::new();
        // SAFETY: there are as many names as tensors, and all of them, the module and the context live during the call.
        let said = unsafe {
            ffi::rz_call(
                self.0.as_ptr(),
                method.as_ptr(),
                names.as_ptr(),
                tensors.as_ptr(),
                inputs.len(),
                gpu.map_or(-1, number),
                gathered.context(),
                told,
            )
        };
        said.check()?;
        gathered.finish().into_iter().collect()
    }
}

/// As LibTorch counts GPUs.
fn number(gpu: usize) -> c_int {
    c_int::try_from(gpu).unwrap_or(c_int::MAX)
}
