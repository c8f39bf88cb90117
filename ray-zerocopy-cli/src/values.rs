//! Values of options: parsers that say what is expected.

/// `FROM=TO`.
pub(crate) fn rename(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((from, to)) if !from.is_empty() => Ok((from.to_owned(), to.to_owned())),
        _ => Err("FROM=TO is expected, as in `^bert\\.=encoder.`".to_owned()),
    }
}

/// `FROM=TO,TO`.
pub(crate) fn split(text: &str) -> Result<(String, Vec<String>), String> {
    match text.split_once('=') {
        Some((from, to)) if !from.is_empty() && to.split(',').all(|name| !name.is_empty()) => {
            Ok((from.to_owned(), to.split(',').map(str::to_owned).collect()))
        }
        _ => Err("FROM=TO,TO is expected, as in `qkv=query,key,value`".to_owned()),
    }
}

/// `FROM,FROM=TO`.
pub(crate) fn fuse(text: &str) -> Result<(Vec<String>, String), String> {
    match text.split_once('=') {
        Some((from, to)) if !to.is_empty() && from.split(',').all(|name| !name.is_empty()) => {
            Ok((from.split(',').map(str::to_owned).collect(), to.to_owned()))
        }
        _ => Err("FROM,FROM=TO is expected, as in `query,key,value=qkv`".to_owned()),
    }
}

/// A positive number: `0.05`.
pub(crate) fn ratio(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| *number > 0.0 && number.is_finite());
    number.ok_or_else(|| "a positive number is expected, as in `0.05`".to_owned())
}

/// A size in bytes: `512M`, `8GiB`.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let shift = match unit.trim_end_matches("iB").trim_end_matches('B').to_ascii_uppercase().as_str() {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err("a size is expected, as in `512M` or `8G`".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "a size is expected, as in `512M` or `8G`".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "it is too large".to_owned())
}

/// `NAME=FILE`, or a file alone.
pub(crate) fn not_empty(text: &str) -> Result<String, String> {
    if text.is_empty() || text.starts_with('=') || text.ends_with('=') {
        return Err("NAME=FILE is expected, or FILE alone".to_owned());
    }
    Ok(text.to_owned())
}

/// A number of seconds, from 0.1 to a day.
pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if (0.1..=86_400.0).contains(&seconds) { Ok(seconds) } else { Err("from 0.1 to 86400 seconds".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::{bytes, fuse, not_empty, rename, seconds, split};

    #[test]
    fn values_are_checked() {
        assert_eq!(rename("^a=b=c"), Ok(("^a".to_owned(), "b=c".to_owned())));
        assert_eq!(rename("a="), Ok(("a".to_owned(), String::new())));
        assert!(rename("=b").is_err() && rename("b").is_err());
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(split("a(b)=$1,c"), Ok(("a(b)".to_owned(), names(&["$1", "c"]))));
        assert_eq!(fuse("a,b=c"), Ok((names(&["a", "b"]), "c".to_owned())));
        assert!(["a", "a=", "a=b,", "=b"].iter().all(|text| split(text).is_err()));
        assert!(["a", "a=", "a,=b", "=b"].iter().all(|text| fuse(text).is_err()));
        assert!(not_empty("a=b=c").is_ok() && ["", "=a", "a="].iter().all(|text| not_empty(text).is_err()));
        assert_eq!((bytes("17"), bytes("8G"), bytes("1MiB")), (Ok(17), Ok(8 << 30), Ok(1 << 20)));
        assert!(["", "G", "1x", "-1", "1.5G", "99999999T"].iter().all(|text| bytes(text).is_err()));
        assert_eq!(seconds("0.5"), Ok(0.5));
        assert!(["0", "-1", "nan", "inf", "x", "1e9"].iter().all(|text| seconds(text).is_err()));
    }
}
