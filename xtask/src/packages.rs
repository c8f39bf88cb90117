//! Tests of the published packages, built from the files that `cargo publish` would upload.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{cargo, run, run_tests, target};

/// The packages that are published.
const PUBLISHED: [&str; 6] = [
    "ray-zerocopy-derive",
    "ray-zerocopy-kernels",
    "ray-zerocopy",
    "ray-zerocopy-serve",
    "ray-zerocopy-cli",
    "ray-zerocopy-python",
];

/// Those of them that others depend on.
const LIBRARIES: [&str; 4] = ["ray-zerocopy-derive", "ray-zerocopy-kernels", "ray-zerocopy", "ray-zerocopy-serve"];

/// The package that selects the features of the workspace.
const FEATURES: &str = "workspace-hack";

/// Packages the published crates, unpacks them into a workspace of their own, runs their unit tests
/// there, and type-checks the feature `ray`.
///
/// `cargo package` would verify them in a separate target folder, where burn has to be built again.
/// This workspace has the repository's lock file, profiles and features, so it reuses what the
/// earlier steps have built. The crates themselves are built again, since their paths differ. Only
/// the third-party crates, the lock file, the profiles and [`FEATURES`] come from outside the
/// packages.
pub(crate) fn tests() -> Result<()> {
    let folder = target().join("packages");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("{} cannot be removed", folder.display()))?;
    }
    fs::create_dir_all(folder.join(FEATURES).join("src"))?;

    let mut package = cargo(["package", "--no-verify", "--allow-dirty"]);
    package.args(PUBLISHED.iter().flat_map(|name| ["-p", name]));
    run(package)?;
    for name in PUBLISHED {
        let mut tar = Command::new("tar");
        let version = env!("CARGO_PKG_VERSION");
        // Files in packages have dates years ago. Without `--touch`, cargo would not detect changes.
        tar.arg("--touch")
            .arg("-xzf")
            .arg(target().join(format!("package/{name}-{version}.crate")))
            .arg("-C")
            .arg(&folder);
        run(tar)?;
    }
    for file in ["Cargo.toml", "build.rs", "src/lib.rs"] {
        let file = Path::new(FEATURES).join(file);
        fs::copy(&file, folder.join(&file)).with_context(|| format!("{} cannot be copied", file.display()))?;
    }
    fs::copy("Cargo.lock", folder.join("Cargo.lock"))?;
    fs::write(folder.join("Cargo.toml"), manifest(&fs::read_to_string("Cargo.toml")?)?)?;

    let target = fs::canonicalize(target())?;
    for arguments in [
        &["test", "--workspace", "--lib", "--bins", "--no-fail-fast"][..],
        &["check", "--workspace", "--all-targets", "--features", "ray"],
    ] {
        let mut command = cargo(arguments);
        command.current_dir(&folder).env("CARGO_TARGET_DIR", &target);
        run_tests(command)?;
    }
    Ok(())
}

/// The manifest of the packages' workspace: that of the repository with other members.
fn manifest(repository: &str) -> Result<String> {
    let version = env!("CARGO_PKG_VERSION");
    let mut lines: Vec<String> = repository.lines().map(str::to_owned).collect();
    let mut replace = |key: &str, by: &str| {
        let Some(line) = lines.iter_mut().find(|line| line.starts_with(&format!("{key} = "))) else {
            bail!("Cargo.toml has no line `{key} = …`");
        };
        by.clone_into(line);
        Ok(())
    };
    let members = PUBLISHED.map(|name| format!("\"{name}-{version}\", ")).concat();
    replace("members", &format!("members = [{members}\"{FEATURES}\"]"))?;
    replace("exclude", "")?;
    lines.push("[patch.crates-io]".to_owned());
    lines.extend(LIBRARIES.map(|name| format!("{name} = {{ path = \"{name}-{version}\" }}")));
    Ok(lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{PUBLISHED, manifest};
    use crate::shell::root;

    #[test]
    fn published_packages_are_those_whose_manifests_do_not_forbid_it() {
        let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
        let members = manifest.lines().find_map(|line| line.strip_prefix("members = [")).unwrap();
        let members = members.trim_end_matches(']').split(", ").map(|name| name.trim_matches('"'));
        let mut published: Vec<_> = members
            .filter(|name| {
                let manifest = fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap();
                !manifest.contains("publish = false")
            })
            .collect();
        published.sort_unstable();
        let mut expected = PUBLISHED;
        expected.sort_unstable();
        assert_eq!(published, expected);
    }

    #[test]
    fn workspace_of_the_packages_has_them_and_the_profiles() {
        let text = manifest(&fs::read_to_string(root().join("Cargo.toml")).unwrap()).unwrap();
        assert!(text.contains("members = [\"ray-zerocopy-derive-") && text.contains("\"workspace-hack\"]"), "{text}");
        assert!(text.contains("[profile.dev.package.burn-flex]") && !text.contains("exclude = "), "{text}");
        assert!(manifest("[workspace]").is_err());
    }
}
