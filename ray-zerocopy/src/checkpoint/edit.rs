//! Changes of a checkpoint to match a pipeline: tying, splitting, fusing and transposing tensors.
//! They read no weights.

use burn::tensor::DType;
use indexmap::IndexMap;
use regex::Regex;

use super::Checkpoint;
use super::entry::Entry;
use super::names::{pattern, similar, unique};
use crate::error::checkpoint::CheckpointError;

fn edit_error(name: &str, what: &str, reason: impl Into<String>) -> CheckpointError {
    CheckpointError::Edit { name: name.to_owned(), what: what.to_owned(), reason: reason.into() }
}

/// Error for a pattern without a match. Such a pattern is a mistake: the pipeline would lack the
/// tensor that the change should have created.
fn matched_nothing(from: &str, what: &str, entries: &[Entry]) -> CheckpointError {
    let reason = match similar(from, entries.iter().map(|entry| entry.renamed.as_str())) {
        Some(similar) => format!("no tensor of the checkpoint matches it (it has `{similar}`)"),
        None => "no tensor of the checkpoint matches it".to_owned(),
    };
    edit_error(from, what, reason)
}

/// Checks that a tensor is not quantised. Quantised data ends with its scales, so a part of its
/// bytes is not a tensor.
fn plain(entry: &Entry, what: &str) -> Result<(), CheckpointError> {
    if matches!(entry.dtype, Ok(DType::QFloat(_))) {
        return Err(edit_error(&entry.renamed, what, "it is quantised"));
    }
    Ok(())
}

impl Checkpoint {
    /// Adds a second name for a tensor, such as `lm_head.weight` for weights that are tied to the
    /// embedding and that most files contain only once. The tensor is stored once, and has the same
    /// address for both names in every worker.
    ///
    /// A `Linear` can share the bytes of an embedding if its config has `LinearLayout::Col`. A row
    /// layout is the transpose, which is a separate tensor.
    ///
    /// ```no_run
    /// # use ray_zerocopy::Checkpoint;
    /// let checkpoint = Checkpoint::open("llama")?.from_pytorch().tie("lm_head.weight", "model.embed_tokens.weight")?;
    /// # Ok::<(), ray_zerocopy::Error>(())
    /// ```
    ///
    /// # Errors
    /// If there is no tensor `tensor`, or already one called `name`. Both are names after
    /// [`rename`](Self::rename).
    pub fn tie(mut self, name: &str, tensor: &str) -> Result<Self, CheckpointError> {
        let Some(entry) = self.entries.iter().find(|entry| entry.renamed == tensor) else {
            let known = similar(tensor, self.entries.iter().map(|entry| entry.renamed.as_str()));
            let known = known.map_or_else(String::new, |name| format!(" (it has `{name}`)"));
            return Err(edit_error(name, "tied", format!("the checkpoint has no `{tensor}`{known}")));
        };
        if self.entries.iter().any(|entry| entry.renamed == name) {
            return Err(edit_error(name, "tied", "the checkpoint has a tensor of that name"));
        }
        let tied = Entry { renamed: name.to_owned(), ..entry.clone() };
        self.entries.push(tied);
        Ok(self)
    }

    /// Splits tensors by rows into as many parts as there are names in `to`, such as a fused
    /// `in_proj_weight` into query, key and value, as PyTorch's `MultiheadAttention` stacks them.
    /// In each name that the regular expression `from` matches, the match is replaced by each of
    /// `to`; `$1` is the first group. All parts have the same number of rows.
    ///
    /// ```no_run
    /// # use ray_zerocopy::Checkpoint;
    /// let checkpoint = Checkpoint::open("model.safetensors")?
    ///     .split(r"in_proj_(weight|bias)$", ["query.$1", "key.$1", "value.$1"])?;
    /// # Ok::<(), ray_zerocopy::Error>(())
    /// ```
    ///
    /// # Errors
    /// If `from` is not a regular expression or matches no tensor, if the rows cannot be divided
    /// evenly, or if two tensors get the same name.
    pub fn split<'a>(self, from: &str, to: impl IntoIterator<Item = &'a str>) -> Result<Self, CheckpointError> {
        self.split_at(from, to.into_iter().map(|name| (name, None)))
    }

    /// Splits tensors as [`split`](Self::split) does, into parts with the given numbers of rows.
    /// Needed where several queries share a key.
    ///
    /// ```no_run
    /// # use ray_zerocopy::Checkpoint;
    /// let checkpoint = Checkpoint::open("model.safetensors")?
    ///     .split_rows(r"qkv\.weight$", [("query.weight", 4096), ("key.weight", 1024), ("value.weight", 1024)])?;
    /// # Ok::<(), ray_zerocopy::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`split`](Self::split), and if the rows of the parts do not add up to those of the
    /// tensor.
    pub fn split_rows<'a>(
        self,
        from: &str,
        to: impl IntoIterator<Item = (&'a str, usize)>,
    ) -> Result<Self, CheckpointError> {
        self.split_at(from, to.into_iter().map(|(name, rows)| (name, Some(rows))))
    }

    fn split_at<'a>(
        mut self,
        from: &str,
        to: impl Iterator<Item = (&'a str, Option<usize>)>,
    ) -> Result<Self, CheckpointError> {
        let to: Vec<_> = to.collect();
        let regex = self.pattern(from, to.iter().map(|(name, _)| *name))?;
        let mut entries = Vec::with_capacity(self.entries.len());
        let mut split = 0;
        for entry in std::mem::take(&mut self.entries) {
            if !regex.is_match(&entry.renamed) {
                entries.push(entry);
                continue;
            }
            split += 1;
            let mut start = 0;
            for (name, rows) in parts(&entry, &to)? {
                let mut part = entry.rows(start, rows);
                part.renamed = regex.replace_all(&entry.renamed, name).into_owned();
                part.param = None;
                start += rows;
                entries.push(part);
            }
        }
        self.entries = entries;
        if split == 0 {
            return Err(matched_nothing(from, "split", &self.entries));
        }
        unique(&self.entries)?;
        Ok(self)
    }

    /// Concatenates tensors by rows, such as query, key and value into one `qkv` for a pipeline
    /// that computes them at once. Each of `from` is a regular expression, whose match in a name is
    /// replaced by `to`. Tensors that get the same name become parts of one tensor, in the order of
    /// `from`.
    ///
    /// ```no_run
    /// # use ray_zerocopy::Checkpoint;
    /// let checkpoint = Checkpoint::open("bert")?
    ///     .fuse([r"query\.(weight|bias)$", r"key\.(weight|bias)$", r"value\.(weight|bias)$"], "qkv.$1")?;
    /// # Ok::<(), ray_zerocopy::Error>(())
    /// ```
    ///
    /// # Errors
    /// If one of `from` is not a regular expression or matches no tensor, if a part is missing, or
    /// if parts differ in their type or in the shape of their rows.
    pub fn fuse<'a>(mut self, from: impl IntoIterator<Item = &'a str>, to: &str) -> Result<Self, CheckpointError> {
        let from: Vec<&str> = from.into_iter().collect();
        let regexes = from.iter().map(|from| self.pattern(from, [to].into_iter())).collect::<Result<Vec<_>, _>>()?;
        let mut fused: IndexMap<String, Vec<Option<Entry>>> = IndexMap::new();
        let mut seen = vec![false; from.len()];
        let mut entries = Vec::with_capacity(self.entries.len());
        for entry in std::mem::take(&mut self.entries) {
            let Some(at) = regexes.iter().position(|regex| regex.is_match(&entry.renamed)) else {
                entries.push(entry);
                continue;
            };
            seen[at] = true;
            let name = regexes[at].replace_all(&entry.renamed, to).into_owned();
            let parts = fused.entry(name.clone()).or_insert_with(|| vec![None; from.len()]);
            if let Some(other) = parts[at].replace(entry.clone()) {
                let reason = format!("`{}` and `{}` would both be part {}", other.renamed, entry.renamed, at + 1);
                return Err(edit_error(&name, "fused", reason));
            }
        }
        if let Some(at) = seen.iter().position(|seen| !seen) {
            return Err(matched_nothing(from[at], "fused", &entries));
        }
        for (name, parts) in fused {
            entries.push(fuse_parts(&name, &from, &parts)?);
        }
        self.entries = entries;
        unique(&self.entries)?;
        Ok(self)
    }

    /// Transposes the matrices whose name matches the regular expression, such as the weights of
    /// GPT-2's `Conv1D`, which are `[in, out]` where PyTorch's `Linear` has `[out, in]`. Use it
    /// with [`from_pytorch`](Self::from_pytorch), which expects the layout of `Linear`.
    ///
    /// ```no_run
    /// # use ray_zerocopy::Checkpoint;
    /// let checkpoint = Checkpoint::open("gpt2")?.from_pytorch().transpose(r"(c_attn|c_proj|c_fc)\.weight$")?;
    /// # Ok::<(), ray_zerocopy::Error>(())
    /// ```
    ///
    /// # Errors
    /// If `pattern` is not a regular expression, or matches no tensor or one that is not a matrix.
    pub fn transpose(mut self, pattern: &str) -> Result<Self, CheckpointError> {
        let regex = self.pattern(pattern, std::iter::empty())?;
        let mut transposed = 0;
        for entry in self.entries.iter_mut().filter(|entry| regex.is_match(&entry.renamed)) {
            plain(entry, "transposed")?;
            let shape = &entry.shape;
            let reason = || format!("its shape is {shape:?}, and a matrix in one piece is expected");
            *entry = entry.transposed().ok_or_else(|| edit_error(&entry.renamed, "transposed", reason()))?;
            transposed += 1;
        }
        match transposed {
            0 => Err(matched_nothing(pattern, "transposed", &self.entries)),
            _ => Ok(self),
        }
    }

    /// Compiles a regular expression and checks that it has the groups that the replacements refer
    /// to.
    fn pattern<'a>(&self, from: &str, to: impl Iterator<Item = &'a str>) -> Result<Regex, CheckpointError> {
        let mut regex = pattern(from, "")?;
        for to in to {
            regex = pattern(from, to)?;
        }
        Ok(regex)
    }
}

/// Number of rows of each part.
fn parts<'a>(entry: &Entry, to: &[(&'a str, Option<usize>)]) -> Result<Vec<(&'a str, usize)>, CheckpointError> {
    let edit_error = |reason: String| edit_error(&entry.renamed, "split", reason);
    plain(entry, "split")?;
    let Some(&rows) = entry.shape.first() else { return Err(edit_error("it has no dimension".to_owned())) };
    let given: Option<Vec<usize>> = to.iter().map(|(_, rows)| *rows).collect();
    let each = match given {
        Some(given) if given.iter().try_fold(0_usize, |sum, &rows| sum.checked_add(rows)) == Some(rows) => given,
        Some(given) => return Err(edit_error(format!("it has {rows} rows, and the parts have {given:?}"))),
        None if to.is_empty() || !rows.is_multiple_of(to.len()) => {
            return Err(edit_error(format!("its {rows} rows are not a multiple of {}", to.len())));
        }
        None => vec![rows / to.len(); to.len()],
    };
    Ok(to.iter().map(|(name, _)| *name).zip(each).collect())
}

/// Concatenates parts into one tensor.
fn fuse_parts(name: &str, from: &[&str], parts: &[Option<Entry>]) -> Result<Entry, CheckpointError> {
    let edit_error = |reason: String| edit_error(name, "fused", reason);
    let mut whole = Vec::with_capacity(parts.len());
    for (part, from) in parts.iter().zip(from) {
        whole.push(part.as_ref().ok_or_else(|| edit_error(format!("nothing that `{from}` matches belongs to it")))?);
    }
    let first = whole[0];
    for part in &whole {
        plain(part, "fused")?;
        if part.shape.is_empty() {
            return Err(edit_error(format!("`{}` has no dimension", part.renamed)));
        }
        if part.dtype != first.dtype || part.shape[1..] != first.shape[1..] {
            let of = |entry: &Entry| {
                let dtype = entry.dtype.as_ref().map_or_else(Clone::clone, |dtype| dtype.name().to_owned());
                format!("`{}` is {dtype} {:?}", entry.renamed, entry.shape)
            };
            return Err(edit_error(format!("{}, and {}: only the numbers of rows may differ", of(first), of(part))));
        }
    }
    let stacked = Entry::stacked(&whole).ok_or_else(|| edit_error("it has no parts".to_owned()))?;
    Ok(Entry { renamed: name.to_owned(), param: None, ..stacked })
}

/// Finds an embedding of the given shape that a missing tensor may be tied to.
pub(crate) fn tied_to<'a>(entries: &'a [Entry], shape: &[usize]) -> Option<&'a str> {
    let looks = |name: &str| ["emb", "wte", "shared"].iter().any(|part| name.contains(part));
    let fits = |entry: &&Entry| {
        entry.shape.len() == 2 && (entry.shape == shape || entry.shape.iter().rev().eq(shape)) && looks(&entry.renamed)
    };
    entries.iter().find(fits).map(|entry| entry.renamed.as_str())
}
