//! Process titles of workers.

/// Title of a worker process, as shown by `ps`.
pub(crate) fn title(index: usize, program: &str) -> String {
    format!("{TITLE}{index} of {program}")
}

const TITLE: &str = "ray-zerocopy worker ";

/// Parses a worker's title into its index and its program. Returns `None` for any other title.
pub(crate) fn titled(title: &str) -> Option<(usize, &str)> {
    let (index, program) = title.strip_prefix(TITLE)?.split_once(" of ")?;
    Some((index.parse().ok()?, program))
}
