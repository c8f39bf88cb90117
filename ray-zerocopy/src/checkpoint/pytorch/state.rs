//! Finds the state dict in the object that was saved: at the top level, or under a key.

use std::borrow::Cow;

use indexmap::IndexMap;

use super::pickle::value::{Id, Pickle, Value};
use super::tensor::{is_scalar, is_tensor};
use crate::error::checkpoint::CheckpointError;

/// Maximum depth of nested dictionaries.
const MAX_DEPTH: usize = 16;
/// Maximum length of a key. Longer keys are ignored, since comparing them repeatedly is expensive.
const MAX_KEY: usize = 4096;
/// Maximum number of keys in an error message.
const LISTED: usize = 12;

/// The tensors that were found, by their names in the file.
pub(super) type Found = IndexMap<String, Id>;

/// Finds the tensors under `key`, or those of the only state dict in the file.
pub(super) fn find(pickle: &Pickle, path: &str, key: Option<&str>) -> Result<Found, CheckpointError> {
    let mut walk = Walk { pickle, path, left: 8 * pickle.values.len() as u64, text: 64 * pickle.len + (1 << 20) };
    match key {
        Some(key) => walk.under(key),
        None => walk.only(),
    }
}

struct Walk<'a> {
    pickle: &'a Pickle,
    path: &'a str,
    /// Remaining number of values to visit. The limit bounds the cost of values that are referenced
    /// many times.
    left: u64,
    /// Remaining number of bytes for names.
    text: u64,
}

impl<'a> Walk<'a> {
    fn none(&self, found: impl Into<String>) -> CheckpointError {
        CheckpointError::NoStateDict { path: self.path.to_owned(), found: found.into() }
    }

    /// Returns the pairs of a dictionary. The last value of each key counts.
    fn pairs(&mut self, id: Id) -> Result<IndexMap<Cow<'a, str>, Id>, CheckpointError> {
        let pickle = self.pickle;
        let by_index =
            |items: &'a [Id]| items.iter().enumerate().map(|(at, &value)| (Cow::Owned(at.to_string()), value));
        let pairs: IndexMap<_, _> = match pickle.get(id) {
            Value::Dict(pairs) => {
                self.charge_values(pairs.len())?;
                pairs.iter().filter_map(|&(key, value)| Some((name(pickle, key)?, value))).collect()
            }
            Value::List(items) => {
                self.charge_values(items.len())?;
                by_index(items).collect()
            }
            Value::Tuple(items) => {
                self.charge_values(items.len())?;
                by_index(items).collect()
            }
            _ => IndexMap::new(),
        };
        Ok(pairs)
    }

    /// Deducts values from the budget.
    fn charge_values(&mut self, values: usize) -> Result<(), CheckpointError> {
        self.left = self.left.checked_sub(values as u64).ok_or_else(|| CheckpointError::Corrupted {
            path: self.path.to_owned(),
            reason: "its pickle names the same values again and again".to_owned(),
        })?;
        Ok(())
    }

    /// Deducts a name from the budget, before it is built.
    fn charge_name(&mut self, prefix: &str, key: &str) -> Result<(), CheckpointError> {
        let bytes = (prefix.len() + key.len() + 1) as u64;
        self.text = self.text.checked_sub(bytes).ok_or_else(|| CheckpointError::Corrupted {
            path: self.path.to_owned(),
            reason: "the names in it are longer than its pickle could have written".to_owned(),
        })?;
        Ok(())
    }

    fn is_collection(&self, id: Id) -> bool {
        matches!(self.pickle.get(id), Value::Dict(_) | Value::List(_) | Value::Tuple(_))
    }

    /// Finds the tensors under a key: a literal key, or keys of nested dictionaries joined with
    /// dots.
    fn under(&mut self, key: &str) -> Result<Found, CheckpointError> {
        let mut at = self.pickle.root;
        let mut rest = key;
        while !rest.is_empty() {
            let pairs = self.pairs(at)?;
            let whole = pairs.get(rest).map(|&value| (value, ""));
            let first = || rest.split_once('.').and_then(|(first, rest)| Some((*pairs.get(first)?, rest)));
            let Some((value, after)) = whole.or_else(first) else {
                let keys: Vec<_> = pairs.keys().map(|key| format!("`{key}`")).collect();
                let keys = if keys.is_empty() { "no key at all".to_owned() } else { shortened(&keys) };
                return Err(self.none(format!("there is no `{rest}` for the key `{key}`, but {keys}")));
            };
            (at, rest) = (value, after);
        }
        let mut found = Found::new();
        self.flatten(at, "", 0, &mut found)?;
        if found.is_empty() {
            let what = self.pickle.describe(at);
            return Err(self.none(format!("under the key `{key}` is {what}, without a tensor")));
        }
        Ok(found)
    }

    /// Collects all tensors below a value. Names are the keys joined with dots.
    fn flatten(&mut self, id: Id, prefix: &str, depth: usize, found: &mut Found) -> Result<(), CheckpointError> {
        if depth > MAX_DEPTH {
            return Err(CheckpointError::Corrupted {
                path: self.path.to_owned(),
                reason: format!("its dictionaries are nested more than {MAX_DEPTH} deep, or hold themselves"),
            });
        }
        for (key, value) in self.pairs(id)? {
            let tensor = is_tensor(self.pickle, value);
            if !tensor && !self.is_collection(value) {
                continue;
            }
            self.charge_name(prefix, &key)?;
            let name = join(prefix, &key);
            if tensor {
                found.insert(name, value);
            } else {
                self.flatten(value, &name, depth + 1, found)?;
            }
        }
        Ok(())
    }

    /// Finds the only state dict of a file: the dictionary with tensors that is nearest to the top
    /// level.
    fn only(&mut self) -> Result<Found, CheckpointError> {
        let root = self.pickle.root;
        if is_tensor(self.pickle, root) {
            return Ok(Found::from([("tensor".to_owned(), root)]));
        }
        if !self.is_collection(root) {
            let what = self.pickle.describe(root);
            return Err(self.none(match self.pickle.get(root) {
                Value::Call(..) => format!(
                    "it holds {what}, a whole module, which only its own code can make again; in Python save `module.state_dict()`"
                ),
                _ => format!("it holds {what}"),
            }));
        }
        // Breadth-first search: the dictionaries of one level, by key. The next level is only
        // searched if none of them has tensors.
        let mut level = vec![(String::new(), root)];
        let mut scalars = Vec::new();
        for _ in 0..4 {
            let (mut candidates, mut next) = (Vec::new(), Vec::new());
            for (key, id) in std::mem::take(&mut level) {
                let pairs = self.pairs(id)?;
                let tensors: Vec<_> = pairs.values().copied().filter(|&value| is_tensor(self.pickle, value)).collect();
                if tensors.iter().any(|&tensor| !is_scalar(self.pickle, tensor)) {
                    candidates.push((key.clone(), id));
                } else if !tensors.is_empty() {
                    scalars.push((key.clone(), id));
                }
                for (name, value) in pairs {
                    if self.is_collection(value) {
                        self.charge_name(&key, &name)?;
                        next.push((join(&key, &name), value));
                    }
                }
            }
            // If the top level has tensors and a nested state dict as well, the user must choose.
            if let [(key, id)] = &candidates[..]
                && key.is_empty()
                && let Some(nested) = self.nested(*id)?
            {
                candidates.push((nested, *id));
            }
            match &candidates[..] {
                [] => level = next,
                &[(_, id)] => return self.direct(id),
                _ => return Err(self.choose(candidates.iter().map(|(key, _)| key))),
            }
        }
        match &scalars[..] {
            [] => Err(self.none("it has no tensor")),
            &[(_, id)] => self.direct(id),
            _ => Err(self.choose(scalars.iter().map(|(key, _)| key))),
        }
    }

    /// Returns the key of a nested dictionary with tensors, if there is one.
    fn nested(&mut self, id: Id) -> Result<Option<String>, CheckpointError> {
        for (key, value) in self.pairs(id)? {
            if matches!(self.pickle.get(value), Value::Dict(_)) {
                let pairs = self.pairs(value)?;
                if pairs.values().any(|&value| is_tensor(self.pickle, value) && !is_scalar(self.pickle, value)) {
                    return Ok(Some(key.into_owned()));
                }
            }
        }
        Ok(None)
    }

    /// Returns the tensors of a dictionary, without those of nested dictionaries.
    fn direct(&mut self, id: Id) -> Result<Found, CheckpointError> {
        let mut found = Found::new();
        for (key, value) in self.pairs(id)? {
            if is_tensor(self.pickle, value) {
                self.charge_name("", &key)?;
                found.insert(key.into_owned(), value);
            }
        }
        Ok(found)
    }

    fn choose<'k>(&self, keys: impl Iterator<Item = &'k String>) -> CheckpointError {
        let names: Vec<String> = keys
            .map(|key| if key.is_empty() { "the top (the key ``)".to_owned() } else { format!("`{key}`") })
            .collect();
        CheckpointError::Choose {
            path: self.path.to_owned(),
            what: "tensors in several places".to_owned(),
            choices: shortened(&names),
            how: "choose one by its key: `Checkpoint::options().key(..)`, or `rzc --key`".to_owned(),
        }
    }
}

/// Converts a key of a dictionary to a name.
fn name(pickle: &Pickle, key: Id) -> Option<Cow<'_, str>> {
    match pickle.get(key) {
        Value::Text(text) if text.len() <= MAX_KEY => Some(Cow::Borrowed(text)),
        Value::Int(number) => Some(Cow::Owned(number.to_string())),
        _ => None,
    }
}

fn join(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") }
}

fn shortened(names: &[String]) -> String {
    let more = names.len().saturating_sub(LISTED);
    let listed = names[..names.len().min(LISTED)].join(", ");
    if more == 0 { listed } else { format!("{listed} and {more} more") }
}
