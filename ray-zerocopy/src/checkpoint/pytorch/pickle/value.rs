//! The values of a pickle.

/// Index of a value in the table of its pickle.
pub(crate) type Id = u32;

/// A value. Nested values are referenced by index.
#[derive(Debug)]
pub(crate) enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// A number whose value is not needed: a float, or an integer of more than 64 bits.
    Number,
    Text(Box<str>),
    /// Bytes, which are skipped.
    Bytes,
    Tuple(Box<[Id]>),
    List(Vec<Id>),
    /// Pairs in insertion order. The last one of equal keys counts.
    Dict(Vec<(Id, Id)>),
    /// A class or function, as `module.name`.
    Global(Box<str>),
    /// A function call or object construction: the function, and its arguments.
    Call(Id, Id),
    /// A persistent id, which refers to data outside of the pickle: the tuple that describes a
    /// storage.
    Persistent(Id),
}

/// A parsed pickle.
#[derive(Debug)]
pub(crate) struct Pickle {
    pub values: Vec<Value>,
    pub root: Id,
    /// Its size in bytes.
    pub len: u64,
}

impl Pickle {
    pub(crate) fn get(&self, id: Id) -> &Value {
        // All ids are created by the machine together with their value.
        self.values.get(id as usize).unwrap_or(&Value::None)
    }

    pub(crate) fn text(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns an integer that is not negative.
    pub(crate) fn number(&self, id: Id) -> Option<u64> {
        match self.get(id) {
            Value::Int(number) => (*number).try_into().ok(),
            _ => None,
        }
    }

    /// Returns the values of a tuple or a list.
    pub(crate) fn items(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Value::Tuple(items) => Some(items),
            Value::List(items) => Some(items),
            _ => None,
        }
    }

    /// Returns the name of the called function, and the arguments, if the value is a call.
    pub(crate) fn call(&self, id: Id) -> Option<(&str, Id)> {
        let Value::Call(function, arguments) = self.get(id) else { return None };
        // Old files refer to the class of a module by a persistent id, which includes its source.
        let function = match self.get(*function) {
            Value::Persistent(named) => match self.items(*named)? {
                &[what, class, ..] if self.text(what) == Some("module") => class,
                _ => return None,
            },
            _ => *function,
        };
        match self.get(function) {
            Value::Global(name) => Some((name, *arguments)),
            _ => None,
        }
    }

    /// Describes a value for an error message.
    pub(crate) fn describe(&self, id: Id) -> String {
        match self.get(id) {
            Value::None => "None".to_owned(),
            Value::Bool(_) => "a boolean".to_owned(),
            Value::Int(_) | Value::Number => "a number".to_owned(),
            Value::Text(_) => "a text".to_owned(),
            Value::Bytes => "bytes".to_owned(),
            Value::Tuple(_) => "a tuple".to_owned(),
            Value::List(_) => "a list".to_owned(),
            Value::Dict(_) => "a dictionary".to_owned(),
            Value::Global(name) => format!("`{name}`"),
            Value::Call(..) => {
                self.call(id).map_or("an object".to_owned(), |(name, _)| format!("an object of `{name}`"))
            }
            Value::Persistent(_) => "a storage".to_owned(),
        }
    }
}
