//! Tasks of the workspace: the commands that developers and CI run. See `cargo xtask --help`.

mod artifacts;
mod cuda;
mod devices;
mod disk;
mod failures;
mod fuzz;
mod libtorch;
mod old_kernel;
mod other_systems;
mod packages;
mod progress;
mod ray;
mod setup;
mod shell;
mod side_by_side;
mod soak;
mod test;
mod tools;
mod wheel;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use setup::Fetching;

/// Tasks of the ray-zerocopy workspace
///
/// A task first checks its requirements: programs, libraries and files that the repository does not
/// have. Missing ones are fetched, as `cargo xtask setup` does, for the tests while their first steps
/// run. With `--no-setup` a task stops
/// instead, and says in one line what is missing and which command fetches it.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, about, max_term_width = 100)]
#[command(after_help = "Common tasks:
  cargo xtask test                   everything that has to pass before a change lands
  cargo xtask test --only spelling   one step of it
  cargo xtask setup --list           the requirements of the tasks: present or missing
  cargo xtask bench                  the benchmarks, by name")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
    /// Fetch nothing: stop if a requirement of the task is missing
    #[arg(long, global = true)]
    no_setup: bool,
}

#[derive(Subcommand)]
enum Task {
    /// Run everything that has to pass: format, spelling, lints, docs, tests, packages, devices, Ray, Python
    ///
    /// All chosen steps run, and a summary ends the output. A step that cannot run fails; only
    /// `other systems` is skipped if Rust's standard library for macOS is missing. Missing
    /// requirements are fetched while steps run that do not need them.
    #[command(after_help = "Examples:
  cargo xtask test                       all steps
  cargo xtask test --only ray            the steps with `ray` in their names
  cargo xtask test --no-setup            all steps, on a machine where nothing may be installed
  cargo xtask test --list                the steps, and what they require")]
    Test {
        /// Only the step with this name, or the steps whose names contain TEXT
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
        /// List the steps, what they run, and [their requirements]
        #[arg(long)]
        list: bool,
    },
    /// Fetch and install what the tests and the other tasks require
    ///
    /// Without names, everything that `cargo xtask test` requires. Debian packages are installed
    /// with apt if the user is root; for other users the command is printed. Everything else goes
    /// into the user's cache, the target folder and cargo's own folder.
    #[command(after_help = "Examples:
  cargo xtask setup                      what the tests require
  cargo xtask setup typos libtorch       these two, and what fetching them requires
  cargo xtask setup --all                the tools of `fuzz`, `book` and `audit`, too
  cargo xtask setup --list               all requirements: present or missing, and why they are required")]
    Setup {
        /// The names of requirements
        names: Vec<String>,
        /// All requirements, of the tests and of the other tasks
        #[arg(long, conflicts_with = "names")]
        all: bool,
        /// List the requirements, and fetch nothing
        #[arg(long, conflicts_with_all = ["names", "all"])]
        list: bool,
    },
    /// Lint the code of the features `cuda`, `wgpu` and `torchscript`, which takes no GPU
    Features,
    /// Fetch the models of the examples and the tests into the cache: `cargo xtask setup models`
    Models,
    /// Create the Python environment with Ray in the cache, and print where it is
    ///
    /// Programs with the feature `ray` find it there. The same as `cargo xtask setup ray-env`.
    RayEnv,
    /// Build the wheel for PyTorch, and try it in fresh environments with and without Ray
    ///
    /// The wheel stays in target/wheel.
    Wheel(wheel::Options),
    /// Fetch ONNX Runtime and PyTorch into the cache, and print where the Python environment is
    ///
    /// `cargo xtask bench compiled -- --peers` compares with them. The same as `cargo xtask setup peers-env torch`.
    Peers,
    /// Run a cargo command with LibTorch for the CPU: `cargo xtask libtorch run --features …`
    ///
    /// LibTorch is assembled in the cache from wheels on PyPI, unless LIBTORCH names your own.
    /// Without a command, prints the shell command that sets LIBTORCH for other builds.
    Libtorch {
        /// The cargo command and its options
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Run a cargo command that can build the feature `cuda`: `cargo xtask cuda run --features …`
    ///
    /// LLVM, which compiles kernels, is assembled in the cache from wheels on PyPI, unless your data
    /// folder has one for cubecl. Neither a GPU nor CUDA is needed to build. Without a command,
    /// prints the shell commands that prepare other builds.
    Cuda {
        /// The cargo command and its options
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Run a benchmark, or list them: `cargo xtask bench memory -- --help`
    Bench {
        /// The benchmark; without it, the names are listed
        name: Option<String>,
        /// Options of the benchmark, after `--`
        #[arg(last = true)]
        options: Vec<String>,
    },
    /// Fuzz the code that reads untrusted bytes, or list the targets: `cargo xtask fuzz arena 600`
    Fuzz {
        /// The target, or `all`, one after the other; without it, the targets are listed
        target: Option<String>,
        /// How long each target runs, in seconds
        #[arg(default_value_t = 60)]
        seconds: u64,
    },
    /// Load every engine with messages of 1 B to 256 MiB, and `rzc serve`, compare each answer, and watch the memory
    Soak {
        /// How long each of the four engines runs, and then the server
        #[arg(long, default_value_t = 600)]
        seconds: u64,
        /// Run the four engines on Ray instead, on a cluster of this machine
        #[arg(long)]
        ray: bool,
        /// Run only what has this text in its name, such as `graph`, `actors` or `server`
        #[arg(long)]
        only: Option<String>,
    },
    /// Load worker pools while workers are killed, stopped and confused, for longer than tests do
    Chaos {
        /// How long it runs
        #[arg(long, default_value_t = 120)]
        seconds: u64,
        /// The seed of an earlier run, which it printed first
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Build the book as HTML into target/book
    Book,
    /// Write the man pages of `rzc` into target/man
    Man,
    /// Check licences and vulnerabilities with cargo-deny, which fetches the advisory database
    Audit,
}

impl Task {
    /// The names of its requirements.
    fn needs(&self) -> Result<Vec<&'static str>> {
        let names: &[_] = match self {
            Self::Test { only, list: false } => return test::needs(only.as_deref()),
            Self::Features => devices::LINT_NEEDS,
            Self::Models => &["models"],
            Self::RayEnv | Self::Soak { ray: true, .. } => &["ray-env"],
            Self::Libtorch { command } if command.is_empty() => &["libtorch"],
            Self::Libtorch { .. } => libtorch::NEEDS,
            Self::Cuda { command } if command.is_empty() => &["llvm"],
            Self::Cuda { .. } => cuda::NEEDS,
            Self::Wheel(_) => wheel::NEEDS,
            Self::Peers => &["peers-env", "torch"],
            Self::Bench { name: Some(name), .. } if name == "torchscript" => libtorch::NEEDS,
            Self::Bench { name, options } if options.iter().any(|option| option == "--peers") => {
                match name.as_deref() {
                    Some("serve") => &["servers-env", "torch"],
                    _ => &["peers-env", "torch"],
                }
            }
            Self::Fuzz { target: Some(_), .. } => &["cargo-fuzz"],
            Self::Book => &["mdbook"],
            Self::Audit => &["cargo-deny"],
            _ => &[],
        };
        Ok(names.to_vec())
    }

    fn run(self, fetching: Fetching) -> Result<()> {
        match self {
            Self::Test { list: true, .. } => test::list(),
            Self::Test { only, .. } => test::run(only.as_deref(), fetching)?,
            Self::Setup { list: true, .. } => setup::list(),
            Self::Setup { all: true, .. } => setup::setup(&setup::all())?,
            Self::Setup { names, .. } if names.is_empty() => setup::setup(&test::needs(None)?)?,
            Self::Setup { names, .. } => setup::setup(&names.iter().map(String::as_str).collect::<Vec<_>>())?,
            Self::Models => {}
            Self::Features => devices::lints()?,
            Self::RayEnv => ray::environment()?,
            Self::Wheel(options) => wheel::wheel(&options)?,
            Self::Peers => println!("{}", setup::python::peers_environment()?.display()),
            Self::Libtorch { command } => libtorch::libtorch(&command)?,
            Self::Cuda { command } => cuda::cuda(&command)?,
            Self::Bench { name, options } => tools::bench(name.as_deref(), &options)?,
            Self::Fuzz { target, seconds } => fuzz::fuzz(target.as_deref(), seconds)?,
            Self::Soak { seconds, ray, only } => soak::soak(seconds, ray, only.as_deref())?,
            Self::Chaos { seconds, seed } => soak::chaos(seconds, seed)?,
            Self::Book => tools::book()?,
            Self::Man => tools::man()?,
            Self::Audit => tools::audit()?,
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    std::env::set_current_dir(shell::root())?;
    let Arguments { task, no_setup } = Arguments::parse();
    let needs = task.needs()?;
    let fetching = if matches!(task, Task::Test { .. }) && !no_setup {
        setup::require_in_background(&needs)?
    } else {
        setup::require(&needs, !no_setup)?;
        Fetching::default()
    };
    task.run(fetching)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::Parser;

    use super::Arguments;
    use crate::setup;

    #[test]
    fn arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn requirements_of_tasks_exist() {
        let known = setup::all();
        let tasks =
            ["features", "models", "ray-env", "libtorch", "libtorch run -p x", "cuda", "bench torchscript", "fuzz all"];
        for task in tasks.into_iter().chain([
            "soak --ray",
            "book",
            "audit",
            "test --no-setup",
            "peers",
            "wheel",
            "cuda build --features cuda",
            "bench compiled -- --peers",
            "bench serve -- --peers",
        ]) {
            let arguments = Arguments::try_parse_from(["xtask"].into_iter().chain(task.split(' '))).unwrap();
            let needs = arguments.task.needs().unwrap();
            assert!(!needs.is_empty() && needs.iter().all(|need| known.contains(need)), "{task}: {needs:?}");
        }
        for task in ["fuzz", "bench", "setup", "test --list", "man"] {
            let arguments = Arguments::try_parse_from(["xtask"].into_iter().chain(task.split(' '))).unwrap();
            assert!(arguments.task.needs().unwrap().is_empty(), "{task}");
        }
    }
}
