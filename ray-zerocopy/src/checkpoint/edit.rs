//! Tensors as a pipeline wants them: tied, split, fused and transposed. No bytes are read for that.

use burn::tensor::DType;
use indexmap::IndexMap;
use regex::Regex;

use super::Checkpoint;
use super::entry::Entry;
use super::names::{pattern, similar, unique};
use crate::error::checkpoint::CheckpointError;

fn refused(name: &str, what: &str, reason: impl Into<String>) -> CheckpointError {
    CheckpointError::Edit { name: name.to_owned(), what: what.to_owned(), reason: reason.into() }
}

/// A pattern that nothing matches is a mistake: the pipeline would miss what it should have made.
fn matched_nothing(from: &str, what: &str, entries: &[Entry]) -> CheckpointError {
    let reason = match similar(from, entries.iter().map(|entry| entry.renamed.as_str())) {
        Some(similar) => format!("no tensor of the checkpoint matches it (it has `{similar}`)"),
        None => "no tensor of the checkpoint matches it".to_owned(),
    };
    refused(from, what, reason)
}

/// Quantised values have their scales behind them: a part of the bytes means nothing.
fn plain(entry: &Entry, what: &str) -> Result<(), CheckpointError> {
    if matches!(entry.dtype, Ok(DType::QFloat(_))) {
        return Err(refused(&entry.renamed, what, "it is quantised"));
    }
    Ok(())
}

impl Checkpoint {
    /// Gives the tensor `tensor` a second name, `name`: the weight of an `lm_head` that is tied to the embedding, say,
    /// which most files have but once. It is stored once, and lies in the same place in every worker.
    ///
    /// A `Linear` can share the bytes of an embedding if its config has `LinearLayout::Col`; a row layout is the
    /// transpose, which is a tensor of its own.
    ///
    /// ```no_run
    /// # use ray_zerocopy::Checkpoint;
    /// let checkpoint = Checkpoint::open("llama")?.from_pytorch().tie("lm_head.weight", "model.embed_tokens.weight")?;
    /// # Ok::<(), ray_zerocopy::Error>(())
    /// ```
    ///
    /// # Errors
    /// If there is no `tensor`, or a `name` already. Both are names after [`rename`](Self::rename).
    pub fn tie(mut self, name: &str, tensor: &str) -> Result<Self, CheckpointError> {
        let Some(entry) = self.entries.iter().find(|entry| entry.renamed == tensor) else {
            let known = similar(tensor, self.entries.iter().map(|entry| entry.renamed.as_str()));
            let known = known.map_or_else(String::new, |name| format!(" (it has `{name}`)"));
            return Err(refused(name, "tied", format!("the checkpoint has no `{tensor}`{known}")));
        };
        if self.entries.iter().any(|entry| entry.renamed == name) {
            return Err(refused(name, "tied", "the checkpoint has a tensor of that name"));
        }
        let tied = Entry { renamed: name.to_owned(), ..entry.clone() };
        self.entries.push(tied);
        Ok(self)
    }

    /// Splits tensors into as many as there are names in `to`, by rows: a fused `in_proj_weight` into query, key and
    /// value, as PyTorch's `MultiheadAttention` stacks them. Wherever the regular expression `from` matches a name,
    /// each of `to` takes its place; `$1` is the first group. All parts have the same number of rows.
    ///
    /// ```no_run
    /// # use ray_zerocopy::Checkpoint;
    /// let checkpoint = Checkpoint::open("model.safetensors")?
    ///     .split(r"in_proj_(weight|bias)$", ["query.$1", "key.$1", "value.$1"])?;
    /// # Ok::<(), ray_zerocopy::Error>(())
    /// ```
    ///
    /// # Errors
    /// If `from` is not a regular expression or matches nothing, if the rows cannot be divided, or two tensors get the
    /// same name.
    pub fn split<'a>(self, from: &str, to: impl IntoIterator<Item = &'a str>) -> Result<Self, CheckpointError> {
        self.split_at(from, to.into_iter().map(|name| (name, None)))
    }

    /// [`split`](Self::split) into parts of these numbers of rows, as where several queries share a key.
    ///
    /// ```no_run
    /// # use ray_zerocopy::Checkpoint;
    /// let checkpoint = Checkpoint::open("model.safetensors")?
    ///     .split_rows(r"qkv\.weight$", [("query.weight", 4096), ("key.weight", 1024), ("value.weight", 1024)])?;
    /// # Ok::<(), ray_zerocopy::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`split`](Self::split), and if the rows of the parts are not those of the tensor.
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

    /// Puts tensors together, their rows one after the other: query, key and value into one `qkv`, for a pipeline that
    /// computes them at once. Each of `from` is a regular expression; where it matches a name, `to` takes its place,
    /// and those that get the same name are parts of one tensor, in the order of `from`.
    ///
    /// ```no_run
    /// # use ray_zerocopy::Checkpoint;
    /// let checkpoint = Checkpoint::open("bert")?
    ///     .fuse([r"query\.(weight|bias)$", r"key\.(weight|bias)$", r"value\.(weight|bias)$"], "qkv.$1")?;
    /// # Ok::<(), ray_zerocopy::Error>(())
    /// ```
    ///
    /// # Errors
    /// If one of `from` is not a regular expression or matches nothing, a part is missing, or parts differ in their
    /// type or in the shape of their rows.
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
                return Err(refused(&name, "fused", reason));
            }
        }
        if let Some(at) = seen.iter().position(|seen| !seen) {
            return Err(matched_nothing(from[at], "fused", &entries));
        }
        for (name, parts) in fused {
            entries.push(together(&name, &from, &parts)?);
        }
        self.entries = entries;
        unique(&self.entries)?;
        Ok(self)
    }

    /// Transposes the matrices whose name the regular expression matches: the weights of GPT-2's `Conv1D`, which are
    /// `[in, out]` where PyTorch's `Linear` has `[out, in]`. Use it with [`pytorch`](Self::pytorch), which expects
    /// those of `Linear`.
    ///
    /// ```no_run
    /// # use ray_zerocopy::Checkpoint;
    /// let checkpoint = Checkpoint::open("gpt2")?.from_pytorch().transpose(r"(c_attn|c_proj|c_fc)\.weight$")?;
    /// # Ok::<(), ray_zerocopy::Error>(())
    /// ```
    ///
    /// # Errors
    /// If `pattern` is not a regular expression or matches nothing, or something that is not a matrix.
    pub fn transpose(mut self, pattern: &str) -> Result<Self, CheckpointError> {
        let regex = self.pattern(pattern, std::iter::empty())?;
        let mut turned = 0;
        for entry in self.entries.iter_mut().filter(|entry| regex.is_match(&entry.renamed)) {
            plain(entry, "transposed")?;
            let shape = &entry.shape;
            let reason = || format!("its shape is {shape:?}, and a matrix in one piece is expected");
            *entry = entry.transposed().ok_or_else(|| refused(&entry.renamed, "transposed", reason()))?;
            turned += 1;
        }
        match turned {
            0 => Err(matched_nothing(pattern, "transposed", &self.entries)),
            _ => Ok(self),
        }
    }

    /// A regular expression, with the groups that the replacements name.
    fn pattern<'a>(&self, from: &str, to: impl Iterator<Item = &'a str>) -> Result<Regex, CheckpointError> {
        let mut regex = pattern(from, "")?;
        for to in to {
            regex = pattern(from, to)?;
        }
        Ok(regex)
    }
}

/// The rows that each part gets.
fn parts<'a>(entry: &Entry, to: &[(&'a str, Option<usize>)]) -> Result<Vec<(&'a str, usize)>, CheckpointError> {
    let refused = |reason: String| refused(&entry.renamed, "split", reason);
    plain(entry, "split")?;
    let Some(&rows) = entry.shape.first() else { return Err(refused("it has no dimension".to_owned())) };
    let given: Option<Vec<usize>> = to.iter().map(|(_, rows)| *rows).collect();
    let each = match given {
        Some(given) if given.iter().try_fold(0_usize, |sum, &rows| sum.checked_add(rows)) == Some(rows) => given,
        Some(given) => return Err(refused(format!("it has {rows} rows, and the parts have {given:?}"))),
        None if to.is_empty() || !rows.is_multiple_of(to.len()) => {
            return Err(refused(format!("its {rows} rows are not a multiple of {}", to.len())));
        }
        None => vec![rows / to.len(); to.len()],
    };
    Ok(to.iter().map(|(name, _)| *name).zip(each).collect())
}

/// One tensor of parts that belong together.
fn together(name: &str, from: &[&str], parts: &[Option<Entry>]) -> Result<Entry, CheckpointError> {
    let refused = |reason: String| refused(name, "fused", reason);
    let mut whole = Vec::with_capacity(parts.len());
    for (part, from) in parts.iter().zip(from) {
        whole.push(part.as_ref().ok_or_else(|| refused(format!("nothing that `{from}` matches belongs to it")))?);
    }
    let first = whole[0];
    for part in &whole {
        plain(part, "fused")?;
        if part.shape.is_empty() {
            return Err(refused(format!("`{}` has no dimension", part.renamed)));
        }
        if part.dtype != first.dtype || part.shape[1..] != first.shape[1..] {
            let of = |entry: &Entry| {
                let dtype = entry.dtype.as_ref().map_or_else(Clone::clone, |dtype| dtype.name().to_owned());
                format!("`{}` is {dtype} {:?}", entry.renamed, entry.shape)
            };
            return Err(refused(format!("{}, and {}: only the numbers of rows may differ", of(first), of(part))));
        }
    }
    let stacked = Entry::stacked(&whole).ok_or_else(|| refused("it has no parts".to_owned()))?;
    Ok(Entry { renamed: name.to_owned(), param: None, ..stacked })
}

/// Tensors of a checkpoint that may be meant where one is missing: embeddings of its shape, which models tie.
pub(crate) fn tied_to<'a>(entries: &'a [Entry], shape: &[usize]) -> Option<&'a str> {
    let looks = |name: &str| ["emb", "wte", "shared"].iter().any(|part| name.contains(part));
    let fits = |entry: &&Entry| {
        entry.shape.len() == 2 && (entry.shape == shape || entry.shape.iter().rev().eq(shape)) && looks(&entry.renamed)
    };
    entries.iter().find(fits).map(|entry| entry.renamed.as_str())
}
