//! TODO.

/// What a worker calls itself, for `ps` and the like.
pub(crate) fn title(index: usize, program: &str) -> String {
    format!("{TITLE}{index} of {program}")
}

const TITLE: &str = "ray-zerocopy worker ";

/// The number of a worker and its program, if that is what a process calls itself.
pub(crate) fn titled(title: &str) -> Option<(usize, &str)> {
    let (index, program) = title.strip_prefix(TITLE)?.split_once(" of ")?;
    Some((index.parse().ok()?, program))
}
