//! What a pickle holds.

/// A value's place in the table of its pickle.
pub(crate) type Id = u32;

/// A value. Those that it is made of are named by their place.
#[derive(Debug)]
pub(crate) enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// A number that nothing here needs: a float, or an integer of more than 64 bits.
    Number,
    Text(Box<str>),
    /// Bytes, which are skipped.
    Bytes,
    Tuple(Box<[Id]>),
    List(Vec<Id>),
    /// Pairs in the order in which they were set; of two with the same key the last one counts.
    Dict(Vec<(Id, Id)>),
    /// A class or function, as `module.name`.
    Global(Box<str>),
    /// The call of a function, or the making of an object: the function, and its arguments.
    Call(Id, Id),
    /// What the pickle does not hold itself: the tuple that names a storage.
    Persistent(Id),
}

/// A pickle that has been read.
#[derive(Debug)]
pub(crate) struct Pickle {
    pub values: Vec<Value>,
    pub root: Id,
    /// The bytes that it has.
    pub len: u64,
}

impl Pickle {
    pub(crate) fn get(&self, id: Id) -> &Value {
        // Every place comes from the machine, which has put a value there.
        self.values.get(id as usize).unwrap_or(&Value::None)
    }

    pub(crate) fn text(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A number that is not negative.
    pub(crate) fn number(&self, id: Id) -> Option<u64> {
        match self.get(id) {
            Value::Int(number) => (*number).try_into().ok(),
            _ => None,
        }
    }

    /// The values of a tuple or a list.
    pub(crate) fn items(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Value::Tuple(items) => Some(items),
            Value::List(items) => Some(items),
            _ => None,
        }
    }

    /// The name of the function that a value is the call of, and the arguments.
    pub(crate) fn call(&self, id: Id) -> Option<(&str, Id)> {
        let Value::Call(function, arguments) = self.get(id) else { return None };
        // Old files name a module's class as they name storages, with its source beside it.
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

    /// What a value is, for an error.
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
