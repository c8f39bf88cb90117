//! Resources of this process that a pool has to give back.

/// Resources of this process: open files, threads of the engine, children, mappings of arenas and
/// messages, and folders.
#[derive(Debug, PartialEq, Eq)]
pub struct Holdings {
    pub files: Vec<String>,
    pub threads: usize,
    pub children: usize,
    pub mappings: usize,
    pub folders: usize,
}

/// Whether a thread has the name of one of a pool's. The process's only timer runs until its end.
fn is_thread_of_a_pool(name: &str) -> bool {
    name.starts_with("ray-zerocopy") && !name.starts_with("ray-zerocopy ti")
}

/// Lists the resources of this process.
///
/// # Panics
/// If `/proc` cannot be read.
pub fn holdings() -> Holdings {
    let list = |path: &str| std::fs::read_dir(path).unwrap().flatten().map(|entry| entry.path());
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let mut files: Vec<_> = list("/proc/self/fd")
        .filter_map(|path| Some(std::fs::read_link(path).ok()?.to_string_lossy().into_owned()))
        // The descriptor of the folder that is being read.
        .filter(|file| !file.ends_with("/fd"))
        .collect();
    files.sort();
    let myself = std::process::id().to_string();
    let parent = |stat: &str| stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)).map(str::to_owned);
    Holdings {
        files,
        threads: list("/proc/self/task").filter(|task| is_thread_of_a_pool(&read(task.join("comm")))).count(),
        children: list("/proc").filter(|process| parent(&read(process.join("stat"))).as_ref() == Some(&myself)).count(),
        mappings: read("/proc/self/maps".into()).matches("/memfd:ray-zerocopy").count(),
        folders: list(&std::env::temp_dir().to_string_lossy())
            .filter(|path| path.to_string_lossy().contains(&format!("ray-zerocopy-{myself}-")))
            .count(),
    }
}
