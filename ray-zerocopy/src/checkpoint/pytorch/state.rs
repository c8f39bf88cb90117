//! Finding the state dict in what `torch.save` was given: at the top, or under a key.

use indexmap::IndexMap;

use super::pickle::{Id, Pickle, Value};
use super::tensor::{is_scalar, is_tensor};
use crate::checkpoint::CheckpointError;

/// How deep dictionaries are looked into.
const MAX_DEPTH: usize = 16;
/// How many keys an error lists.
const LISTED: usize = 12;

/// What was found, under the names that the file has for them.
pub(super) type Found = IndexMap<String, Id>;

/// The tensors of a pickle: those under `key`, or those of the one state dict that it has.
pub(super) fn find(pickle: &Pickle, path: &str, key: Option<&str>) -> Result<Found, CheckpointError> {
    let mut walk = Walk { pickle, path, left: pickle.values.len() as u64, text: 64 * pickle.len + (1 << 20) };
    match key {
        Some(key) => walk.under(key),
        None => walk.only(),
    }
}

struct Walk<'a> {
    pickle: &'a Pickle,
    path: &'a str,
    /// How many values may still be looked at: as many as the pickle has, however often one of them is named.
    left: u64,
    /// How many bytes the names may still take.
    text: u64,
}

impl Walk<'_> {
    fn none(&self, found: impl Into<String>) -> CheckpointError {
        CheckpointError::NoStateDict { path: self.path.to_owned(), found: found.into() }
    }

    /// The pairs of a dictionary, each key with the value that was set last.
    fn pairs(&mut self, id: Id) -> Result<IndexMap<String, Id>, CheckpointError> {
        let pairs: Vec<(String, Id)> = match self.pickle.get(id) {
            Value::Dict(pairs) => {
                let pairs = pairs.iter().filter_map(|&(key, value)| Some((self.name(key)?, value)));
                pairs.collect()
            }
            Value::List(items) => items.iter().enumerate().map(|(at, &value)| (at.to_string(), value)).collect(),
            Value::Tuple(items) => items.iter().enumerate().map(|(at, &value)| (at.to_string(), value)).collect(),
            _ => Vec::new(),
        };
        let too_many = || CheckpointError::Corrupted {
            path: self.path.to_owned(),
            reason: "its pickle names the same values again and again".to_owned(),
        };
        self.left = self.left.checked_sub(pairs.len() as u64).ok_or_else(too_many)?;
        Ok(pairs.into_iter().collect())
    }

    fn name(&self, key: Id) -> Option<String> {
        match self.pickle.get(key) {
            Value::Text(text) => Some(text.to_string()),
            Value::Int(number) => Some(number.to_string()),
            _ => None,
        }
    }

    fn is_collection(&self, id: Id) -> bool {
        matches!(self.pickle.get(id), Value::Dict(_) | Value::List(_) | Value::Tuple(_))
    }

    /// What is under a key: the key itself, or keys of nested dictionaries with dots between them.
    fn under(&mut self, key: &str) -> Result<Found, CheckpointError> {
        let mut at = self.pickle.root;
        let mut rest = key;
        while !rest.is_empty() {
            let pairs = self.pairs(at)?;
            let whole = pairs.get(rest).map(|&value| (value, ""));
            let first = || rest.split_once('.').and_then(|(first, rest)| Some((*pairs.get(first)?, rest)));
            let Some((value, behind)) = whole.or_else(first) else {
                let keys = self.listed(pairs.keys());
                return Err(self.none(format!("there is no `{rest}` for the key `{key}`, but {keys}")));
            };
            (at, rest) = (value, behind);
        }
        let mut found = Found::new();
        self.flatten(at, "", 0, &mut found)?;
        match found.is_empty() {
            true => Err(self.none(format!("under the key `{key}` is {}, without a tensor", self.pickle.describe(at)))),
            false => Ok(found),
        }
    }

    /// All tensors below a value; names are keys with dots between them.
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
            let bytes = (prefix.len() + key.len() + 1) as u64;
            self.text = self.text.checked_sub(bytes).ok_or_else(|| CheckpointError::Corrupted {
                path: self.path.to_owned(),
                reason: "the names of its tensors are longer than its pickle could have written".to_owned(),
            })?;
            let name = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
            if tensor {
                found.insert(name, value);
            } else {
                self.flatten(value, &name, depth + 1, found)?;
            }
        }
        Ok(())
    }

    /// The one state dict of a file: the dictionary with tensors that is nearest to the top.
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
        // Dictionaries at the same depth, by their key; those further down are looked at if these have no tensor.
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
                let below = pairs.into_iter().filter(|(_, value)| self.is_collection(*value));
                next.extend(below.map(|(name, value)| match key.is_empty() {
                    true => (name, value),
                    false => (format!("{key}.{name}"), value),
                }));
                self.text = self.text.saturating_sub(next.last().map_or(0, |(name, _)| name.len()) as u64);
                if self.text == 0 {
                    return Err(self.none("the keys of its dictionaries are longer than its pickle"));
                }
            }
            // A state dict at the top may stand beside others, which is for the user to decide.
            if let [(key, id)] = &candidates[..]
                && key.is_empty()
                && let Some(beside) = self.nested(*id)?
            {
                candidates.push((beside, *id));
            }
            match &candidates[..] {
                [] => level = next,
                [(key, _)] => {
                    let key = key.clone();
                    return self.direct(&key, candidates[0].1);
                }
                _ => return Err(self.choose(candidates.iter().map(|(key, _)| key))),
            }
        }
        match &scalars[..] {
            [] => Err(self.none("it has no tensor")),
            [(key, id)] => self.direct(&key.clone(), *id),
            _ => Err(self.choose(scalars.iter().map(|(key, _)| key))),
        }
    }

    /// The key of a dictionary of tensors in one that has tensors itself.
    fn nested(&mut self, id: Id) -> Result<Option<String>, CheckpointError> {
        for (key, value) in self.pairs(id)? {
            if matches!(self.pickle.get(value), Value::Dict(_)) {
                let pairs = self.pairs(value)?;
                if pairs.values().any(|&value| is_tensor(self.pickle, value) && !is_scalar(self.pickle, value)) {
                    return Ok(Some(key));
                }
            }
        }
        Ok(None)
    }

    fn direct(&mut self, _key: &str, id: Id) -> Result<Found, CheckpointError> {
        let pairs = self.pairs(id)?;
        Ok(pairs.into_iter().filter(|(_, value)| is_tensor(self.pickle, *value)).collect())
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

    fn listed<'k>(&self, keys: impl Iterator<Item = &'k String>) -> String {
        let names: Vec<String> = keys.map(|key| format!("`{key}`")).collect();
        if names.is_empty() { "no key at all".to_owned() } else { shortened(&names) }
    }
}

fn shortened(names: &[String]) -> String {
    let more = names.len().saturating_sub(LISTED);
    let listed = names[..names.len().min(LISTED)].join(", ");
    if more == 0 { listed } else { format!("{listed} and {more} more") }
}
