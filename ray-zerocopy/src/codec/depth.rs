//! Nesting depth of a MessagePack value, computed without recursion.
//!
//! Decoding uses stack for each level, and a stack overflow ends the process. rmp-serde counts
//! lists and maps, but not enums: its depth limit never triggers for a box in an enum in a box. So
//! the bytes are scanned before they are decoded.

/// Maximum nesting depth. In a build without optimisation, a thread with a stack of 2 MiB does not
/// reach the 1024 levels that are usual for MessagePack.
pub(super) const MAX: usize = 256;

/// Returns `true` if the first value in `bytes` is nested deeper than [`MAX`]. Bytes that are not
/// MessagePack are not too deep: the decoder reports them.
pub(super) fn too_deep(bytes: &[u8]) -> bool {
    // Number of values still expected on each level.
    let mut open = [0_u64; MAX];
    let mut depth = 0;
    let mut rest = bytes;
    while let Some((skip, values)) = item(rest) {
        let Some(next) = usize::try_from(skip).ok().and_then(|skip| rest.get(skip..)) else { return false };
        rest = next;
        if values > 0 {
            let Some(level) = open.get_mut(depth) else { return true };
            *level = values;
            depth += 1;
            continue;
        }
        // A value is complete, and so is each enclosing value whose last element it is.
        loop {
            let Some(level) = depth.checked_sub(1) else { return false };
            open[level] -= 1;
            if open[level] > 0 {
                break;
            }
            depth = level;
        }
    }
    false
}

/// Size of the item at the start of `bytes` without the values nested in it, and the number of
/// these values. Returns `None` if the bytes end early.
fn item(bytes: &[u8]) -> Option<(u64, u64)> {
    let (&marker, rest) = bytes.split_first()?;
    let length =
        |size: usize| rest.get(..size).map(|bytes| bytes.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte)));
    let low = u64::from(marker & 0xf);
    Some(match marker {
        0x80..=0x8f => (1, 2 * low),
        0x90..=0x9f => (1, low),
        0xa0..=0xbf => (1 + u64::from(marker & 0x1f), 0),
        0xc4 | 0xd9 => (2 + length(1)?, 0),
        0xc5 | 0xda => (3 + length(2)?, 0),
        0xc6 | 0xdb => (5 + length(4)?, 0),
        0xc7 => (3 + length(1)?, 0),
        0xc8 => (4 + length(2)?, 0),
        0xc9 => (6 + length(4)?, 0),
        0xcc | 0xd0 => (2, 0),
        0xcd | 0xd1 => (3, 0),
        0xca | 0xce | 0xd2 => (5, 0),
        0xcb | 0xcf | 0xd3 => (9, 0),
        0xd4..=0xd8 => (2 + (1 << (marker - 0xd4)), 0),
        0xdc => (3, length(2)?),
        0xdd => (5, length(4)?),
        0xde => (3, 2 * length(2)?),
        0xdf => (5, 2 * length(4)?),
        _ => (1, 0),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::MAX;
    use super::item;
    use super::too_deep;
    use crate::codec;

    fn nested(depth: usize) -> Value {
        (0..depth).fold(json!(1), |inner, _| json!([inner]))
    }

    #[test]
    fn values_nested_beyond_max_are_refused() {
        for depth in [0, 1, MAX - 2] {
            let bytes = codec::encode(&nested(depth)).unwrap();
            assert!(!too_deep(&bytes), "{depth}");
            assert_eq!(codec::decode::<Value>(&bytes), Ok(nested(depth)));
        }
        let bytes = codec::encode(&nested(MAX + 1)).unwrap();
        assert!(too_deep(&bytes));
        let error = codec::decode::<Value>(&bytes).unwrap_err();
        assert_eq!(error, "`serde_json::value::Value`: its values are nested more than 256 deep");
        // Many values next to each other are not deep.
        assert!(!too_deep(&codec::encode(&vec![nested(3); 1000]).unwrap()));
    }

    #[test]
    fn every_item_is_as_long_as_its_writer_makes_it() {
        let texts = [0, 31, 32, 255, 256, 65_535, 65_536].map(|len| Value::String("x".repeat(len)));
        let lists = [0, 15, 16, 65_536].map(|len| json!(vec![1; len]));
        let numbers = [json!(0), json!(200), json!(-1), json!(-200), json!(1 << 20), json!(-(1_i64 << 40)), json!(1.5)];
        let maps = [0, 15, 16].map(|len| (0..len).map(|key| (key.to_string(), json!(null))).collect());
        for value in texts.into_iter().chain(lists).chain(numbers).chain(maps).chain([json!(true), json!(null)]) {
            let bytes = codec::encode(&value).unwrap();
            // The whole value is scanned, and not one byte more.
            let (mut at, mut left) = (0, 1);
            while left > 0 {
                let (skip, values) = item(&bytes[at..]).unwrap();
                at += skip as usize;
                left += values as usize;
                left -= 1;
            }
            assert_eq!(at, bytes.len(), "{value:.40}");
        }
        assert_eq!(item(&[]), None);
        assert!(!too_deep(&[0xdf, 0xff]), "cut in its length");
        assert!(!too_deep(&[0xdb, 0xff, 0xff, 0xff, 0xff]), "cut in its text");
    }
}
