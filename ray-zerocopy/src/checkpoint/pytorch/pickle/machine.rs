//! The stack and the memo of the pickle machine, and the imports that it rejects.

use std::collections::HashMap;

use super::PickleError;
use super::source::Source;
use super::value::{Id, Pickle, Value};

/// Maximum number of values. The pickle of a state dict has about fifteen for each tensor.
const MAX_VALUES: usize = 1 << 23;

/// Python modules with functions that have side effects. No checkpoint needs them.
const UNSAFE: [&str; 28] = [
    "os",
    "posix",
    "nt",
    "subprocess",
    "sys",
    "shutil",
    "socket",
    "runpy",
    "pty",
    "importlib",
    "imp",
    "ctypes",
    "code",
    "codeop",
    "commands",
    "webbrowser",
    "pickle",
    "_pickle",
    "cPickle",
    "marshal",
    "types",
    "operator",
    "_operator",
    "urllib",
    "http",
    "requests",
    "pdb",
    "timeit",
];
/// Allowed imports from the builtins, which also contain `eval`.
const BUILTINS: [&str; 18] = [
    "dict",
    "list",
    "set",
    "frozenset",
    "tuple",
    "int",
    "long",
    "float",
    "complex",
    "str",
    "unicode",
    "bytes",
    "bytearray",
    "bool",
    "object",
    "slice",
    "range",
    "type",
];
/// Unsafe functions in otherwise harmless modules.
const UNSAFE_NAMES: [&str; 4] =
    ["torch.hub.load", "torch.utils.cpp_extension.load", "torch.jit.unsupported_tensor_ops.execWrapper", "numpy.load"];
/// Harmless names in unsafe modules.
const HARMLESS_NAMES: [&str; 1] = ["types.SimpleNamespace"];

pub(super) struct Machine {
    values: Vec<Value>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

pub(super) fn broken<T>(reason: &str) -> Result<T, PickleError> {
    Err(PickleError::Broken(reason.to_owned()))
}

impl Machine {
    pub(super) const NONE: Id = 0;
    pub(super) const FALSE: Id = 1;
    pub(super) const TRUE: Id = 2;

    pub(super) fn new() -> Self {
        let values = vec![Value::None, Value::Bool(false), Value::Bool(true)];
        Self { values, stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() }
    }

    pub(super) fn push(&mut self, value: Value) -> Result<(), PickleError> {
        if self.values.len() == MAX_VALUES {
            return Err(PickleError::Broken(format!("it has more than {MAX_VALUES} values")));
        }
        self.stack.push(self.values.len() as Id);
        self.values.push(value);
        Ok(())
    }

    /// Pushes an existing value.
    pub(super) fn again(&mut self, id: Id) {
        self.stack.push(id);
    }

    pub(super) fn pop(&mut self) -> Result<Id, PickleError> {
        if self.marks.last().is_some_and(|&mark| mark == self.stack.len()) {
            return broken("it takes a value from below a mark");
        }
        self.stack.pop().map_or_else(|| broken("it takes a value from an empty stack"), Ok)
    }

    pub(super) fn top(&self) -> Result<Id, PickleError> {
        self.stack.last().copied().map_or_else(|| broken("it takes a value from an empty stack"), Ok)
    }

    pub(super) fn mark(&mut self) {
        self.marks.push(self.stack.len());
    }

    /// Pops all values since the last mark.
    pub(super) fn marked(&mut self) -> Result<Vec<Id>, PickleError> {
        match self.marks.pop() {
            Some(mark) if mark <= self.stack.len() => Ok(self.stack.split_off(mark)),
            _ => broken("it has no mark where it needs one"),
        }
    }

    /// `POP` also removes a mark if nothing was pushed since.
    pub(super) fn drop_top(&mut self) -> Result<(), PickleError> {
        if self.marks.last().is_some_and(|&mark| mark == self.stack.len()) {
            self.marks.pop();
            return Ok(());
        }
        self.pop().map(drop)
    }

    pub(super) fn remember(&mut self, at: u32) -> Result<(), PickleError> {
        let top = self.top()?;
        self.memo.insert(at, top);
        Ok(())
    }

    pub(super) fn remember_next(&mut self) -> Result<(), PickleError> {
        self.remember(self.memo.len() as u32)
    }

    pub(super) fn recall(&mut self, at: u32) -> Result<(), PickleError> {
        match self.memo.get(&at) {
            Some(&id) => {
                self.stack.push(id);
                Ok(())
            }
            None => Err(PickleError::Broken(format!("it recalls value {at}, which it has not noted"))),
        }
    }

    pub(super) fn global(&mut self, module: &str, name: &str) -> Result<(), PickleError> {
        let full = format!("{module}.{name}");
        let first = module.split('.').next().unwrap_or(module);
        let builtin = ["builtins", "__builtin__", "__builtins__"].contains(&module);
        let harmless = (!UNSAFE.contains(&first) || HARMLESS_NAMES.contains(&full.as_str()))
            && (!builtin || BUILTINS.contains(&name))
            && !UNSAFE_NAMES.contains(&full.as_str())
            // `collections.OrderedDict.__init__.__globals__` gives access to everything.
            && !name.split('.').any(|part| part.starts_with("__"));
        if !harmless {
            return Err(PickleError::Unsafe(full));
        }
        self.push(Value::Global(full.into()))
    }

    /// Records a call. Calls that create a dictionary are evaluated.
    pub(super) fn call(&mut self, function: Id, arguments: Id) -> Result<(), PickleError> {
        let dictionary = matches!(
            &self.values[function as usize],
            Value::Global(name) if matches!(
                &**name,
                "collections.OrderedDict" | "collections.defaultdict" | "builtins.dict" | "__builtin__.dict"
            )
        );
        if !dictionary {
            return self.push(Value::Call(function, arguments));
        }
        // Python 2 passes a list of pairs to the constructor.
        let items = |id: Id| match &self.values[id as usize] {
            Value::Tuple(items) => &items[..],
            Value::List(items) => &items[..],
            _ => &[],
        };
        let pairs = items(arguments).first().map_or(&[][..], |&first| items(first));
        let pairs = pairs.iter().filter_map(|&pair| items(pair).first_chunk().map(|&[key, value]| (key, value)));
        let pairs = pairs.collect();
        self.push(Value::Dict(pairs))
    }

    /// Appends to the list on top of the stack. Ignored for other values.
    pub(super) fn append(&mut self, items: &[Id]) -> Result<(), PickleError> {
        let top = self.top()?;
        if let Value::List(list) = &mut self.values[top as usize] {
            list.extend(items);
        }
        Ok(())
    }

    /// Sets pairs of the dictionary on top of the stack.
    pub(super) fn set(&mut self, items: &[Id]) -> Result<(), PickleError> {
        let (pairs, []) = items.as_chunks::<2>() else { return broken("it sets a key without a value") };
        let top = self.top()?;
        if let Value::Dict(dictionary) = &mut self.values[top as usize] {
            dictionary.extend(pairs.iter().map(|&[key, value]| (key, value)));
        }
        Ok(())
    }

    /// Pops a text.
    pub(super) fn pop_text(&mut self) -> Result<String, PickleError> {
        let top = self.pop()?;
        match &self.values[top as usize] {
            Value::Text(text) => Ok(text.to_string()),
            _ => broken("it imports something without a name"),
        }
    }

    pub(super) fn finish(mut self, source: &Source<'_>, start: u64) -> Result<Pickle, PickleError> {
        let root = self.pop()?;
        Ok(Pickle { values: self.values, root, len: source.position() - start })
    }
}
