//! The folder of models: finds the file of a name, and never one outside of the folder.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use crate::error::{ErrorKind, ServeError};

/// Extensions of models, in the order in which they are looked for.
const EXTENSIONS: [&str; 4] = ["rzg", "jit", "pt", "pth"];
/// Name of a model's file in a folder of its own.
const MODEL: &str = "model";
/// Most bytes of a name.
const LONGEST: usize = 128;

/// Checks the name of a model, which becomes part of a path and of URLs.
///
/// # Errors
/// If it is empty, too long, begins with a dot, or has other characters than letters, digits, `_`, `-`, `.`, `+` and `@`.
pub(super) fn check_name(name: &str) -> Result<(), ServeError> {
    let is_allowed = |letter: char| letter.is_ascii_alphanumeric() || "_-.+@".contains(letter);
    if name.is_empty() || name.len() > LONGEST || name.starts_with('.') || !name.chars().all(is_allowed) {
        return Err(ServeError::invalid(format!(
            "`{}` is not the name of a model: expected 1 to {LONGEST} letters, digits, `_`, `-`, `.`, `+` or `@`, and no dot \
             in front",
            name.escape_debug()
        )));
    }
    Ok(())
}

/// A folder of models, by its canonical path.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Opens a folder.
    ///
    /// # Errors
    /// If it does not exist, or is not a folder.
    pub(super) fn open(path: PathBuf) -> Result<Self, ServeError> {
        let failed = |reason: String| ServeError::invalid(format!("the folder of models {}: {reason}", path.display()));
        let canonical = fs::canonicalize(&path).map_err(|error| failed(error.to_string()))?;
        if !canonical.is_dir() {
            return Err(failed("it is a file, expected a folder".to_owned()));
        }
        Ok(Self(canonical))
    }

    /// Finds the file of a model, and returns its canonical path.
    ///
    /// # Errors
    /// If there is none, or it is a link to a file outside of the folder.
    pub(super) fn find(&self, name: &str) -> Result<PathBuf, ServeError> {
        check_name(name)?;
        let beside = EXTENSIONS.iter().map(|extension| self.0.join(format!("{name}.{extension}")));
        let within = EXTENSIONS.iter().map(|extension| self.0.join(name).join(format!("{MODEL}.{extension}")));
        let Some(path) = beside.chain(within).find(|path| path.exists()) else {
            return Err(ServeError::new(
                ErrorKind::NotFound,
                format!(
                    "there is no model `{name}` in the folder of models: no file `{name}.rzg`, `{name}.pt` or `{name}.jit`"
                ),
            ));
        };
        fs::canonicalize(&path).ok().filter(|canonical| canonical.starts_with(&self.0)).ok_or_else(|| {
            ServeError::invalid(format!(
                "the file of the model `{name}` is a link to a place outside of the folder of models"
            ))
        })
    }

    /// The names of the models in the folder.
    pub(super) fn names(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        let name = |entry: fs::DirEntry| {
            let path = entry.path();
            let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
            let name = name?.to_str()?.to_owned();
            self.find(&name).is_ok().then_some(name)
        };
        entries.filter_map(name).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::{Folder, check_name};

    #[test]
    fn names_are_no_paths() {
        for name in ["minilm", "a.b-c_d+1@2", "..."] {
            assert_eq!(check_name(name).is_ok(), !name.starts_with('.'), "{name}");
        }
        for name in ["", "../x", "a/b", "a\\b", "a\0b", "..", ".hidden", "ä", &"x".repeat(129)] {
            assert!(check_name(name).unwrap_err().to_string().contains("is not the name of a model"), "{name}");
        }
    }

    #[test]
    fn files_are_found_within_the_folder_only() {
        let root = tempfile::tempdir().unwrap();
        let (folder, outside) = (root.path().join("models"), root.path().join("secret.rzg"));
        fs::create_dir_all(folder.join("own")).unwrap();
        for file in [folder.join("a.rzg"), folder.join("own/model.pt"), outside.clone()] {
            fs::write(file, "").unwrap();
        }
        symlink(&outside, folder.join("link.rzg")).unwrap();
        symlink(folder.join("a.rzg"), folder.join("alias.rzg")).unwrap();
        let models = Folder::open(folder.clone()).unwrap();
        assert_eq!(models.names().into_iter().collect::<Vec<_>>(), ["a", "alias", "own"]);
        assert!(models.find("own").unwrap().ends_with("own/model.pt"));
        assert!(models.find("link").unwrap_err().to_string().contains("outside of the folder"));
        assert!(models.find("b").unwrap_err().to_string().contains("no file `b.rzg`"));
        assert!(models.find("../secret").is_err());
        assert!(Folder::open(outside).unwrap_err().to_string().contains("expected a folder"));
    }
}
