//! Types of parameters and results as text, for the list of methods.

use ray_zerocopy::__private::dynamic::Schema;

/// The type of a value, as a caller writes it in JSON: tensors are nested lists.
pub(super) fn describe(schema: &Schema) -> String {
    match schema {
        Schema::Tensor { rank, kind } => format!("{kind} tensor of rank {rank}"),
        Schema::List(item) => format!("list of {}", describe(item)),
        Schema::Array(item, len) => format!("list of {len} {}", describe(item)),
        Schema::Optional(inner) => format!("{} or null", describe(inner)),
        Schema::Map { value, .. } => format!("object of {}", describe(value)),
        Schema::Tuple(items) => format!("list of ({})", items.iter().map(describe).collect::<Vec<_>>().join(", ")),
        Schema::Fallible { ok, .. } => describe(ok),
        Schema::Value { ty } => short(ty),
        other => format!("{other:?}"),
    }
}

/// The name of a type without the paths of modules.
fn short(ty: &str) -> String {
    let mut text = String::new();
    let mut rest = ty;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (word, after) = rest.split_at(end.max(first.len_utf8()));
        rest = after;
        match after.strip_prefix("::") {
            Some(after) if end > 0 => rest = after,
            _ => text.push_str(word),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn paths_are_left_out() {
        assert_eq!(short("alloc::string::String"), "String");
        assert_eq!(short("alloc::vec::Vec<(usize, my_crate::a::B)>"), "Vec<(usize, B)>");
        assert_eq!(short("core::option::Option<&str>"), "Option<&str>");
        assert_eq!(short("()"), "()");
    }
}
