//! Sizes in bytes, as text.

/// Formats a size in MiB with one decimal place, such as `1.5`.
pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}

/// Returns a size in MiB, rounded up.
pub(crate) fn mib_rounded_up(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

#[cfg(test)]
mod tests {
    #[test]
    fn small_size_is_rounded_up_to_a_mib() {
        assert_eq!(super::mib_rounded_up(5 << 10), 1);
        assert_eq!(super::mib_rounded_up(2 << 20), 2);
    }

    #[test]
    fn mib_has_one_decimal_place() {
        assert_eq!(super::mib(3 << 19), "1.5");
        assert_eq!(super::mib(0), "0.0");
    }
}
