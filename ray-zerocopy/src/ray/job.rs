//! The runtime environment of the job that this program was submitted as, with `ray job submit`.

use std::path::{Path, PathBuf};

use crate::error::ray::RayError;

/// Environment variable in which `ray job submit` passes the job's configuration.
const VARIABLE: &str = "RAY_JOB_CONFIG_JSON_ENV_VAR";
/// Environment variable with which users let a program's own settings override those of the job.
const OVERRIDE: &str = "RAY_OVERRIDE_JOB_RUNTIME_ENV";
/// Keys that select the program that Ray starts as a worker.
const PROGRAMS: [&str; 9] =
    ["py_executable", "pip", "uv", "conda", "container", "image_uri", "nsight", "_nsight", "_rocprof_sys"];

/// The part of the job's configuration that affects this program.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Job {
    /// Whether Ray sends a folder of the job to each worker.
    pub(super) has_folder: bool,
}

impl Job {
    /// Returns the job of this process, or a default value if it was not submitted as a job.
    ///
    /// # Errors
    /// If its runtime environment has a key that conflicts with the settings that workers of this
    /// program need.
    pub(super) fn own() -> Result<Self, RayError> {
        let overrides = std::env::var(OVERRIDE).is_ok_and(|value| value == "1");
        match std::env::var(VARIABLE) {
            Ok(text) => Self::read(&text, overrides),
            Err(_) => Ok(Self::default()),
        }
    }

    fn read(text: &str, overrides: bool) -> Result<Self, RayError> {
        // Ray rejects text that is not JSON, with its own error message.
        let config: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
        let Some(environment) = config.get("runtime_env").and_then(serde_json::Value::as_object) else {
            return Ok(Self::default());
        };
        let is_set = |key: &str| environment.get(key).is_some_and(|value| !value.is_null());
        if !overrides && let Some(key) = PROGRAMS.into_iter().find(|key| is_set(key)) {
            let reason = format!(
                "it comes from `ray job submit`, and selects another program as Ray's workers than this one; remove it \
                 there, or set {OVERRIDE}=1 to make this program ignore it"
            );
            return Err(RayError::RuntimeEnv { key: key.to_owned(), reason });
        }
        Ok(Self { has_folder: !overrides && is_set("working_dir") })
    }

    /// Path of the program's file in the folder that the job sends to workers.
    ///
    /// # Errors
    /// If the file is not in the folder.
    pub(super) fn path_of(&self, file: &Path) -> Result<PathBuf, RayError> {
        // Ray starts the program in that folder, and its workers as well.
        let folder = std::env::current_dir().unwrap_or_default();
        let inside = file.strip_prefix(&folder).map(|inside| Path::new(".").join(inside));
        inside.map_err(|_| RayError::RuntimeEnv {
            key: "working_dir".to_owned(),
            reason: format!(
                "the job sends this folder to each worker, and Ray sends no second one for this program; put {} into the \
                 folder, or install it on each node and use `ClusterBuilder::upload_executable(false)`",
                file.display()
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Job;
    use crate::error::ray::RayError;

    #[test]
    fn keys_that_select_a_program_are_refused() {
        for key in ["py_executable", "pip", "conda", "image_uri"] {
            let text =
                serde_json::json!({ "runtime_env": { "env_vars": { "A": "1" }, key: "something" }, "metadata": {} });
            let error = Job::read(&text.to_string(), false).unwrap_err();
            assert!(matches!(&error, RayError::RuntimeEnv { key: found, .. } if found == key), "{error}");
            assert!(Job::read(&text.to_string(), true).is_ok());
        }
    }

    #[test]
    fn other_keys_are_accepted() {
        let text =
            r#"{"runtime_env": {"env_vars": {"A": "1"}, "working_dir": "gcs://x.zip", "pip": null}, "metadata": {}}"#;
        assert_eq!(Job::read(text, false).unwrap(), Job { has_folder: true });
        for nothing in ["", "{}", r#"{"runtime_env": {}}"#, r#"{"runtime_env": null}"#] {
            assert_eq!(Job::read(nothing, false).unwrap(), Job::default());
        }
    }

    #[test]
    fn program_in_the_job_folder_is_found() {
        let job = Job { has_folder: true };
        let folder = std::env::current_dir().unwrap();
        assert_eq!(job.path_of(&folder.join("bin/program")).unwrap(), std::path::Path::new("./bin/program"));
        let error = job.path_of(std::path::Path::new("/elsewhere/program")).unwrap_err();
        assert!(error.to_string().contains("`working_dir`"), "{error}");
    }
}
