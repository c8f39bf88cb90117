//! Converts Rust types to Python annotations, for stubs and errors. The annotations are best
//! effort: an unknown type is `Any`.

use ray_zerocopy::__private::dynamic::Schema;
use ray_zerocopy::arena::TensorKind;

/// Returns the annotation of a result if `is_result`, otherwise that of an argument.
pub(crate) fn annotation(schema: &Schema, is_result: bool) -> String {
    let inner = |schema: &Schema| annotation(schema, is_result);
    match schema {
        Schema::Tensor { .. } if !is_result => "ArrayLike".to_owned(),
        Schema::Tensor { kind, .. } => match kind {
            TensorKind::Float => "NDArray[np.floating[Any]]".to_owned(),
            TensorKind::Int => "NDArray[np.integer[Any]]".to_owned(),
            TensorKind::Bool => "NDArray[np.bool_]".to_owned(),
        },
        Schema::List(item) | Schema::Array(item, _) => format!("{}[{}]", sequence(is_result), inner(item)),
        Schema::Optional(item) => format!("{} | None", inner(item)),
        Schema::Map { key, value } => format!("dict[{}, {}]", inner(key), inner(value)),
        Schema::Tuple(items) => format!("tuple[{}]", items.iter().map(inner).collect::<Vec<_>>().join(", ")),
        Schema::Fallible { ok, .. } => inner(ok),
        Schema::Value { ty } => value(ty, is_result, true),
        _ => "Any".to_owned(),
    }
}

/// Arguments may be any sequence; results are lists.
fn sequence(is_result: bool) -> &'static str {
    if is_result { "list" } else { "Sequence" }
}

/// Converts a type name of the compiler: `alloc::vec::Vec<alloc::string::String>`.
fn value(ty: &str, is_result: bool, outermost: bool) -> String {
    let inner = |ty: &str| value(ty, is_result, false);
    if ty == "()" {
        return "None".to_owned();
    }
    if let Some(items) = ty.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
        let items: Vec<_> = split(items, ',').into_iter().filter(|item| !item.is_empty()).map(inner).collect();
        // Nested tuples are returned as lists, which is how MessagePack encodes them.
        return if outermost || !is_result { format!("tuple[{}]", items.join(", ")) } else { "list[Any]".to_owned() };
    }
    if let Some(items) = ty.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let item = split(items, ';').first().map_or_else(|| "Any".to_owned(), |item| inner(item));
        return format!("{}[{item}]", sequence(is_result));
    }
    let (path, arguments) = match ty.split_once('<') {
        Some((path, rest)) => (path, split(rest.strip_suffix('>').unwrap_or(rest), ',')),
        None => (ty, Vec::new()),
    };
    let argument = |index: usize| arguments.get(index).map_or_else(|| "Any".to_owned(), |ty| inner(ty));
    match path.rsplit("::").next().unwrap_or(path) {
        "bool" => "bool".to_owned(),
        "String" | "char" => "str".to_owned(),
        "PathBuf" if !is_result => "str | PathLike[str]".to_owned(),
        "PathBuf" => "str".to_owned(),
        "f32" | "f64" => "float".to_owned(),
        "u8" | "u16" | "u32" | "u64" | "usize" | "i8" | "i16" | "i32" | "i64" | "isize" => "int".to_owned(),
        "Vec" if !is_result && arguments == ["u8"] => "Sequence[int] | bytes".to_owned(),
        "Vec" | "VecDeque" | "HashSet" | "BTreeSet" => format!("{}[{}]", sequence(is_result), argument(0)),
        "Box" | "Arc" | "Rc" => argument(0),
        "Option" => format!("{} | None", argument(0)),
        "HashMap" | "BTreeMap" => format!("dict[{}, {}]", argument(0), argument(1)),
        _ => "Any".to_owned(),
    }
}

/// Splits at separators outside brackets.
fn split(text: &str, separator: char) -> Vec<&str> {
    let mut depth = 0_i32;
    let parts = text.split(|character| {
        depth += match character {
            '<' | '(' | '[' => 1,
            '>' | ')' | ']' => -1,
            _ => 0,
        };
        character == separator && depth == 0
    });
    parts.map(str::trim).collect()
}

#[cfg(test)]
mod tests {
    use std::any::type_name;
    use std::collections::{BTreeMap, HashMap};

    use ray_zerocopy::__private::dynamic::Schema;
    use ray_zerocopy::arena::TensorKind;

    use super::annotation;

    fn of<T>(is_result: bool) -> String {
        annotation(&Schema::Value { ty: type_name::<T>() }, is_result)
    }

    #[test]
    fn rust_types_have_python_annotations() {
        assert_eq!(of::<Vec<String>>(false), "Sequence[str]");
        assert_eq!(of::<Vec<String>>(true), "list[str]");
        assert_eq!(
            of::<Option<HashMap<String, (f32, Vec<u64>)>>>(false),
            "dict[str, tuple[float, Sequence[int]]] | None"
        );
        assert_eq!(of::<BTreeMap<u8, Vec<(bool, char)>>>(true), "dict[int, list[list[Any]]]");
        assert_eq!(of::<(String, [f64; 3])>(true), "tuple[str, list[float]]");
        assert_eq!(of::<()>(true), "None");
        assert_eq!(of::<Vec<u8>>(false), "Sequence[int] | bytes");
        assert_eq!(of::<std::time::Duration>(true), "Any");
    }

    #[test]
    fn tensors_are_arrays() {
        let tensor = Schema::Tensor { rank: 2, kind: TensorKind::Float };
        assert_eq!(annotation(&tensor, false), "ArrayLike");
        let list = Schema::List(Box::new(tensor));
        assert_eq!(annotation(&list, true), "list[NDArray[np.floating[Any]]]");
    }
}
