//! The path of a value in a pipeline, `heads["fr"].2.weight`.

/// A path under construction: segments are pushed on the way in, and dropped on the way out.
#[derive(Debug, Default, Clone)]
pub(super) struct Path {
    text: String,
    starts: Vec<usize>,
}

impl Path {
    /// Enters a field, a variant, an index or a module: `.name`.
    pub(super) fn push(&mut self, name: &str) {
        self.starts.push(self.text.len());
        if !self.text.is_empty() {
            self.text.push('.');
        }
        self.text.push_str(name);
    }

    /// Enters an entry of a map: `["fr"]`, `[7]`.
    pub(super) fn push_key(&mut self, key: &str) {
        self.starts.push(self.text.len());
        self.text.push('[');
        self.text.push_str(key);
        self.text.push(']');
    }

    pub(super) fn pop(&mut self) {
        if let Some(start) = self.starts.pop() {
            self.text.truncate(start);
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::Path;

    #[test]
    fn segments_join_as_rust_would_write_them() {
        let mut path = Path::default();
        path.push("heads");
        path.push_key("\"fr\"");
        path.push("2");
        path.push("weight");
        assert_eq!(path.as_str(), "heads[\"fr\"].2.weight");
        path.pop();
        path.pop();
        assert_eq!(path.as_str(), "heads[\"fr\"]");
        path.pop();
        path.pop();
        path.pop();
        assert_eq!(path.as_str(), "");
    }
}
