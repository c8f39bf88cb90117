//! A process that asks for an arena, and says what it got. It runs this executable again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use burn::nn::{Linear, LinearConfig};
use burn::tensor::{DType, Device};
use ray_zerocopy::error::HolderError;
use ray_zerocopy::holder::{Holder, SharedSource, swap_followers};
use ray_zerocopy::{Arena, Checkpoint, LocalPool, Pipeline, TaskWrapper, load, share};
use ray_zerocopy_tests::memory::eventually;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

const ORDER: &str = "RAY_ZEROCOPY_TEST_ORDER";

#[derive(Pipeline)]
pub(crate) struct Speech {
    #[pipeline(config)]
    pub(crate) config: SpeechConfig,
    pub(crate) layer: Linear,
    pub(crate) labels: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SpeechConfig {
    pub(crate) size: usize,
}

impl SpeechConfig {
    pub(crate) fn init(&self, device: &Device) -> Speech {
        let layer = LinearConfig::new(self.size, self.size).init(device);
        Speech { config: self.clone(), layer, labels: vec!["a".to_owned()] }
    }
}

/// What a process asks for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) source: Source,
    /// Rows and columns of its pipeline.
    pub(crate) size: usize,
    /// The value of its copied field.
    pub(crate) label: String,
    /// One of the weights of each arena, by its id, for a program that serves.
    pub(crate) weights: BTreeMap<String, f32>,
    /// A file that it creates while it seals the arena. Then it seals no further.
    pub(crate) stops: Option<PathBuf>,
    /// The file that gets what it found.
    found: PathBuf,
    /// The process runs as long as this file exists.
    stay: PathBuf,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Source {
    /// A saved arena or a checkpoint.
    Path(PathBuf),
    /// A checkpoint whose floats are cast.
    Cast(PathBuf),
    Name(String),
    /// A saved arena, without a pipeline.
    File(PathBuf),
    /// The same, kept for others.
    Kept(PathBuf),
    /// A saved arena, served by two workers of the program, which follows [`NAME`].
    Served(PathBuf),
    /// A saved arena, for the programs that follow [`NAME`].
    Swapped(PathBuf),
}

/// The name that programs follow.
pub(crate) const NAME: &str = "speech";

#[ray_zerocopy::remote]
impl Speech {
    /// One of the weights.
    pub fn first(&self) -> f32 {
        self.layer.weight.val().slice([0..1, 0..1]).into_scalar()
    }
}

/// What a process got.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Found {
    pub(crate) pid: u32,
    /// The inode of the memory.
    pub(crate) inode: u64,
    pub(crate) id: String,
    pub(crate) weight: f32,
    pub(crate) label: String,
}

/// Not a test of its own: the processes that the tests start.
#[test]
fn role_of_a_program() {
    let Ok(order) = std::env::var(ORDER) else { return };
    let order: Order = serde_json::from_str(&order).unwrap();
    let (found, arena) = match order.get() {
        Ok((found, arena)) => (Ok(found), Some(arena)),
        Err(error) => (Err(error.to_string()), None),
    };
    let draft = order.found.with_extension("draft");
    fs::write(&draft, serde_json::to_vec(&found).unwrap()).unwrap();
    fs::rename(&draft, &order.found).unwrap();
    // Kept until the end.
    let held = arena.clone();
    match (&order.source, arena) {
        (Source::Served(_), Some(arena)) => order.serve(arena),
        (Source::Swapped(_), Some(arena)) => {
            // Without a follower, or if one dies, that is an error.
            let _ = swap_followers(NAME, &arena);
        }
        _ => {}
    }
    while order.stay.exists() {
        std::thread::sleep(Duration::from_millis(2));
    }
    drop(held);
}

impl Order {
    fn get(&self) -> Result<(Found, Arena), HolderError> {
        let mut pipeline = SpeechConfig { size: self.size }.init(&Device::flex());
        pipeline.labels = vec![self.label.clone()];
        let progress = |_| {
            if let Some(file) = &self.stops {
                fs::write(file, "").unwrap();
                std::thread::sleep(Duration::from_secs(120));
            }
        };
        let arena = match &self.source {
            Source::Path(path) => Arena::shared(path, &pipeline)?,
            Source::Cast(path) => Arena::shared(&Checkpoint::open(path)?.cast_floats(DType::F16), &pipeline)?,
            Source::Name(name) => Arena::shared(SharedSource::named(name), &pipeline)?,
            Source::File(path) | Source::Served(path) | Source::Swapped(path) => Arena::shared_file(path, progress)?,
            Source::Kept(path) => Holder::builder().build().keep(path, progress)?,
        };
        Ok((of(&arena), arena))
    }
}

impl Order {
    /// Serves an arena, and those that other programs send, until the process is to end. Every answer has to be
    /// that of the weights that the call names.
    fn serve(&self, arena: Arena) {
        // A worker that is killed before it is ready is an error of the start.
        let start = || LocalPool::builder().workers(2).threads_per_worker(1).start().ok();
        let pool = std::iter::repeat_with(start).take(20).find_map(|pool| pool).unwrap();
        let tasks = TaskWrapper::<Speech>::from_arena_on(&pool, arena).unwrap().attempts(20);
        let following = tasks.follow(NAME).unwrap();
        while self.stay.exists() {
            let call = tasks.first();
            let id = call.arena_id().unwrap().to_hex();
            let weight = call.wait().unwrap();
            assert_eq!(weight.to_bits(), self.weights[&id].to_bits(), "not what arena {id} has");
        }
        drop(following);
    }
}

/// What is in an arena.
pub(crate) fn of(arena: &Arena) -> Found {
    let model = load::<Speech>(arena, &Device::flex()).unwrap();
    // One element: reading all of them would copy them.
    let first = model.layer.weight.val().slice([0..1, 0..1]);
    let weight = first.to_data().convert::<f32>().try_to_vec::<f32>().unwrap()[0];
    let inode = rustix::fs::fstat(arena.fd().unwrap()).unwrap().st_ino;
    Found { pid: std::process::id(), inode, id: arena.id().to_hex(), weight, label: model.labels.concat() }
}

/// The programs of a test: a runtime folder of their own, and files.
pub(crate) struct Stage {
    pub(crate) folder: TempDir,
    /// Whether the programs use the runtime folder of this process instead.
    is_common: bool,
    started: std::cell::Cell<usize>,
}

/// A started process. Killed when dropped.
pub(crate) struct Program {
    child: Child,
    found: PathBuf,
    stay: PathBuf,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let stage = Self { folder: TempDir::new().unwrap(), is_common: false, started: Default::default() };
        fs::create_dir(stage.runtime()).unwrap();
        stage
    }

    /// Programs that find what this process holds.
    pub(crate) fn common() -> Self {
        Self { is_common: true, ..Self::new() }
    }

    /// `XDG_RUNTIME_DIR` of the programs.
    pub(crate) fn runtime(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// The names of the files in the folder in which the programs find each other.
    pub(crate) fn left(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.runtime().join("ray-zerocopy")).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// Saves an arena with the given weights.
    pub(crate) fn saved(&self, name: &str, size: usize) -> PathBuf {
        let path = self.folder.path().join(name);
        share(&SpeechConfig { size }.init(&Device::flex())).unwrap().save(&path).unwrap();
        path
    }

    /// Writes a checkpoint whose weights have the same value.
    pub(crate) fn checkpoint(&self, name: &str, size: usize, value: f32) -> PathBuf {
        let path = self.folder.path().join(name);
        let bytes: Vec<u8> = std::iter::repeat_n(value.to_le_bytes(), size * size).flatten().collect();
        let view = |shape: &[usize]| {
            let len = shape.iter().product::<usize>() * 4;
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.to_vec(), &bytes[..len]).unwrap()
        };
        let tensors = [("layer.weight", view(&[size, size])), ("layer.bias", view(&[size]))];
        safetensors::serialize_to_file(tensors, None, &path).unwrap();
        path
    }

    pub(crate) fn order(&self, source: Source) -> Order {
        let number = self.started.replace(self.started.get() + 1);
        let file = |ending: &str| self.folder.path().join(format!("{number}.{ending}"));
        let (label, weights) = ("a".to_owned(), BTreeMap::new());
        Order { source, size: 64, label, weights, stops: None, found: file("found"), stay: file("stay") }
    }

    fn command(&self, program: Command, order: &Order) -> Command {
        fs::write(&order.stay, "").unwrap();
        let mut command = program;
        command.args(["--exact", "program::role_of_a_program", "--nocapture", "--test-threads=1"]);
        command.env(ORDER, serde_json::to_string(order).unwrap());
        if !self.is_common {
            command.env("XDG_RUNTIME_DIR", self.runtime());
        }
        command.stdout(std::process::Stdio::null());
        command
    }

    /// The command of a program that ends when it has its arena, or not. `program` runs this executable.
    pub(crate) fn run(&self, program: Command, order: &Order) -> Command {
        let command = self.command(program, order);
        fs::remove_file(&order.stay).unwrap();
        command
    }

    pub(crate) fn start(&self, order: &Order) -> Program {
        let mut command = self.command(Command::new("/proc/self/exe"), order);
        // Its files would be missed by a test that is killed.
        command.process_group(0);
        Program { child: command.spawn().unwrap(), found: order.found.clone(), stay: order.stay.clone() }
    }

    /// Starts a program whose parent has ended: a shell that starts it in the background.
    pub(crate) fn start_orphan(&self, order: &Order) {
        let mut shell = Command::new("sh");
        let program = fs::read_link("/proc/self/exe").unwrap();
        shell.args(["-c", r#""$@" & "#, "sh"]).arg(program);
        assert!(self.command(shell, order).status().unwrap().success());
    }

    /// Starts a program that gets an arena.
    pub(crate) fn get(&self, source: Source) -> (Program, Found) {
        let program = self.start(&self.order(source));
        let found = program.found().unwrap();
        (program, found)
    }
}

impl Order {
    /// Waits for what the process found, or its error.
    pub(crate) fn found(&self) -> Result<Found, String> {
        read(&self.found)
    }

    pub(crate) fn has_found(&self) -> bool {
        self.found.exists()
    }

    /// Lets the process end.
    pub(crate) fn end(&self) {
        fs::remove_file(&self.stay).unwrap();
    }
}

fn read(found: &Path) -> Result<Found, String> {
    eventually("the program has its arena", || found.exists());
    serde_json::from_slice(&fs::read(found).unwrap()).unwrap()
}

impl Program {
    /// Waits for what it found, or its error.
    pub(crate) fn found(&self) -> Result<Found, String> {
        read(&self.found)
    }

    pub(crate) fn has_found(&self) -> bool {
        self.found.exists()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as programs end.
    pub(crate) fn end(mut self) {
        fs::remove_file(&self.stay).unwrap();
        assert!(self.child.wait().unwrap().success());
    }

    /// Ends it by SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Fails if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
