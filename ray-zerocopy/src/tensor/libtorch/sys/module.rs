//! TorchScript modules.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::ptr::NonNull;

use super::ffi;
use super::tensor::Tensor;

/// A TorchScript module. Its methods may change its buffers, so only one thread at a time may call
/// them.
pub(crate) struct Module(NonNull<ffi::Opaque>);

// SAFETY: a module holds counted references whose counts are atomic, and has no state that is bound
// to the thread that created it.
unsafe impl Send for Module {}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: the module is owned by this value and is not used after this call.
        unsafe { ffi::rz_module_free(self.0.as_ptr()) };
    }
}

/// How a module holds a tensor.
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
    /// Type in TorchScript syntax: `Tensor`, `Optional[int]`, `List[Tensor]`.
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

/// A modification of the module's own tensors by a method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Write {
    /// Path of the tensor or of the object that holds it. `None` if it is unknown.
    pub path: Option<String>,
    /// The method and what it does: `forward writes into it`.
    pub what: String,
}

/// Values collected by callbacks. A panic must not unwind through C++: it is caught, and resumed in
/// `finish`.
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
    /// `context` comes from [`context`](Self::context) of a value of this type that lives for `'a`.
    unsafe fn of<'a>(context: *mut c_void) -> &'a Self {
        // SAFETY: guaranteed by the caller. A shared reference, because the shim calls back from
        // within a call that holds a reference.
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

/// The LibTorch release that this program was compiled against, such as `2.9.1`.
#[cfg(feature = "ray")]
pub(crate) fn version() -> String {
    // SAFETY: the function has no preconditions and no state.
    let version = unsafe { ffi::rz_version() };
    // SAFETY: the string is a constant of the program.
    unsafe { text(version) }
}

/// # Safety
/// `text` points to a zero-terminated string that is valid during the call.
unsafe fn text(text: *const c_char) -> String {
    // SAFETY: guaranteed by the caller.
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

    /// Reads a whole module from a file.
    ///
    /// # Errors
    /// The message of LibTorch.
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        let path = c_string(&path.to_string_lossy())?;
        // SAFETY: the path is zero-terminated and valid during the call.
        Self::made(|module| unsafe { ffi::rz_open(path.as_ptr(), module) })
    }

    /// Reads a whole module from memory.
    ///
    /// # Errors
    /// The message of LibTorch.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        // SAFETY: the pointer and the length describe a slice that is valid during the call.
        Self::made(|module| unsafe { ffi::rz_load(bytes.as_ptr().cast(), bytes.len(), module) })
    }

    /// Serialises the module into memory.
    ///
    /// # Errors
    /// The message of LibTorch.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, String> {
        unsafe extern "C" fn callback(context: *mut c_void, bytes: *const c_char, len: usize) {
            // SAFETY: `context` is the one passed below.
            let gathered = unsafe { Gathered::<Vec<u8>>::of(context) };
            // SAFETY: the pointer and the length describe bytes that are valid during this call.
            let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), len) };
            gathered.add(|| bytes.to_vec());
        }
        let gathered = Gathered::<Vec<u8>>::new();
        // SAFETY: the module and the context are valid during the call.
        unsafe { ffi::rz_save(self.0.as_ptr(), gathered.context(), callback) }.check()?;
        Ok(gathered.finish().concat())
    }

    /// Returns all tensors that the module holds, in parameters, buffers and other attributes.
    ///
    /// # Errors
    /// The message of LibTorch.
    pub(crate) fn tensors(&self) -> Result<Vec<Held>, String> {
        unsafe extern "C" fn callback(
            context: *mut c_void,
            name: *const c_char,
            role: c_int,
            tensor: *mut ffi::Opaque,
        ) {
            // SAFETY: `context` is the one passed below.
            let gathered = unsafe { Gathered::<Result<Held, String>>::of(context) };
            // SAFETY: the shim's string is valid during this call.
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
        // SAFETY: the module and the context are valid during the call.
        unsafe { ffi::rz_tensors(self.0.as_ptr(), gathered.context(), callback) }.check()?;
        gathered.finish().into_iter().collect()
    }

    /// Returns the methods.
    ///
    /// # Errors
    /// The message of LibTorch.
    pub(crate) fn methods(&self) -> Result<Vec<Method>, String> {
        type Row = (String, String, String, bool);
        unsafe extern "C" fn callback(
            context: *mut c_void,
            method: *const c_char,
            name: *const c_char,
            kind: *const c_char,
            default: bool,
        ) {
            // SAFETY: `context` is the one passed below.
            let gathered = unsafe { Gathered::<Row>::of(context) };
            // SAFETY: the three strings of the shim are valid during this call.
            let [method, name, kind] = [method, name, kind].map(|pointer| unsafe { text(pointer) });
            gathered.add(|| (method, name, kind, default));
        }
        let gathered = Gathered::<Row>::new();
        // SAFETY: the module and the context are valid during the call.
        unsafe { ffi::rz_methods(self.0.as_ptr(), gathered.context(), callback) }.check()?;
        let mut methods: Vec<Method> = Vec::new();
        for (method, name, kind, default) in gathered.finish() {
            match methods.last_mut() {
                // An empty name starts a new method.
                Some(last) if !name.is_empty() => last.arguments.push(Argument { name, kind, default }),
                _ => methods.push(Method { name: method, arguments: Vec::new(), returns: kind }),
            }
        }
        Ok(methods)
    }

    /// Total size in bytes of the tensors that are constants of the code.
    ///
    /// # Errors
    /// The message of LibTorch.
    pub(crate) fn constants(&self) -> Result<u64, String> {
        let mut len = 0;
        // SAFETY: the module is valid, and `len` is writable.
        unsafe { ffi::rz_constants(self.0.as_ptr(), &mut len) }.check()?;
        Ok(len as u64)
    }

    /// Returns what the methods write to tensors of the module, according to LibTorch's alias
    /// analysis. The analysis misses operations that return one of their arguments without
    /// declaring it in their signatures.
    ///
    /// # Errors
    /// The message of LibTorch.
    pub(crate) fn writes(&self) -> Result<Vec<Write>, String> {
        unsafe extern "C" fn callback(context: *mut c_void, path: *const c_char, what: *const c_char) {
            // SAFETY: `context` is the one passed below.
            let gathered = unsafe { Gathered::<Write>::of(context) };
            // SAFETY: both strings of the shim are valid during this call.
            let [path, what] = [path, what].map(|pointer| unsafe { text(pointer) });
            gathered.add(|| Write { path: Some(path).filter(|path| !path.is_empty()), what });
        }
        let gathered = Gathered::<Write>::new();
        // SAFETY: the module and the context are valid during the call.
        unsafe { ffi::rz_writes(self.0.as_ptr(), gathered.context(), callback) }.check()?;
        Ok(gathered.finish())
    }

    /// Replaces tensors of the module, by path. Returns the paths that it has used.
    ///
    /// # Errors
    /// The message of LibTorch.
    pub(crate) fn replace(&self, tensors: &HashMap<String, Tensor>) -> Result<Vec<String>, String> {
        struct Lookup<'a> {
            tensors: &'a HashMap<String, Tensor>,
            used: RefCell<Vec<String>>,
        }
        unsafe extern "C" fn find(context: *mut c_void, path: *const c_char) -> *mut ffi::Opaque {
            // SAFETY: `context` is the one passed below, which is valid during the call.
            let lookup = unsafe { &*context.cast::<Lookup<'_>>() };
            // SAFETY: the shim's string is valid during this call.
            let path = unsafe { text(path) };
            match lookup.tensors.get(&path) {
                Some(tensor) => {
                    lookup.used.borrow_mut().push(path);
                    tensor.as_ptr()
                }
                None => std::ptr::null_mut(),
            }
        }
        let lookup = Lookup { tensors, used: RefCell::new(Vec::new()) };
        let context = std::ptr::from_ref(&lookup).cast_mut().cast();
        // SAFETY: the module, the tensors and the context are valid during the call. The shim adds
        // references to the tensors and does not take ownership of them.
        unsafe { ffi::rz_replace(self.0.as_ptr(), context, find) }.check()?;
        Ok(lookup.used.into_inner())
    }

    /// Replaces tensors by tensors without elements, by path.
    ///
    /// # Errors
    /// The message of LibTorch.
    pub(crate) fn empty(&self, held: &[&Held]) -> Result<(), String> {
        let empty = held.iter().map(|held| Ok((held.path.clone(), held.tensor.emptied()?)));
        self.replace(&empty.collect::<Result<_, String>>()?).map(drop)
    }

    /// Moves the module's tensors to a GPU.
    ///
    /// # Errors
    /// The message of LibTorch.
    pub(crate) fn upload(&mut self, gpu: usize) -> Result<(), String> {
        // SAFETY: the module is valid, and `&mut self` is the only reference to it.
        unsafe { ffi::rz_upload(self.0.as_ptr(), number(gpu)) }.check()
    }

    /// Calls a method. Inputs are copied, since a method may write to them. Outputs are in host
    /// memory.
    ///
    /// # Errors
    /// The message of LibTorch.
    pub(crate) fn call(
        &mut self,
        method: &str,
        inputs: &[(&str, Tensor)],
        gpu: Option<usize>,
    ) -> Result<Vec<(String, Tensor)>, String> {
        unsafe extern "C" fn callback(context: *mut c_void, name: *const c_char, tensor: *mut ffi::Opaque) {
            // SAFETY: `context` is the one passed below.
            let gathered = unsafe { Gathered::<Result<(String, Tensor), String>>::of(context) };
            // SAFETY: the shim's string is valid during this call.
            let name = unsafe { text(name) };
            gathered.add(|| Tensor::new(tensor).map(|tensor| (name, tensor)));
        }
        let method = c_string(method)?;
        let owned = inputs.iter().map(|(name, _)| c_string(name)).collect::<Result<Vec<_>, _>>()?;
        let names: Vec<_> = owned.iter().map(|name| name.as_ptr()).collect();
        let tensors: Vec<_> = inputs.iter().map(|(_, tensor)| tensor.as_ptr()).collect();
        let gathered = Gathered::<Result<(String, Tensor), String>>::new();
        // SAFETY: there are as many names as tensors, and all of them, the module and the context
        // are valid during the call.
        let message = unsafe {
            ffi::rz_call(
                self.0.as_ptr(),
                method.as_ptr(),
                names.as_ptr(),
                tensors.as_ptr(),
                inputs.len(),
                gpu.map_or(-1, number),
                gathered.context(),
                callback,
            )
        };
        message.check()?;
        gathered.finish().into_iter().collect()
    }
}

/// Converts a GPU index to LibTorch's type.
fn number(gpu: usize) -> c_int {
    c_int::try_from(gpu).unwrap_or(c_int::MAX)
}
