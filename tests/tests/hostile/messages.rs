//! Malicious messages. The first byte of a file selects the expected types, and the other bytes are
//! a frame.

use serde_json::{Value, json};

use super::Case;

/// The expected types of the message and its values, as `ray_zerocopy::__private::fuzz::message`
/// reads them.
#[derive(Clone, Copy)]
enum Expect {
    Request = 0,
    Answer = 1,
    Text = 2,
    Json = 1 << 2 | 2,
    Nested = 2 << 2 | 2,
    Map = 3 << 2 | 2,
    Matrix = 4 << 2 | 2,
    Vectors = 5 << 2 | 2,
    Bytes = 10 << 2 | 2,
}

fn numbers(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// The head of most messages here: the pair of a text and a number.
fn head() -> Vec<u8> {
    vec![0x92, 0xa1, b'x', 0x07]
}

fn frame(head: &[u8], segments: &[&[u8]]) -> Vec<u8> {
    let mut frame = numbers(&[head.len() as u64, segments.len() as u64]);
    segments.iter().for_each(|segment| frame.extend(numbers(&[segment.len() as u64])));
    frame.extend(head);
    for segment in segments {
        frame.resize(frame.len().next_multiple_of(64), 0);
        frame.extend(*segment);
    }
    frame
}

/// The MessagePack encoding of JSON lists, texts and numbers.
fn pack(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.push(0xc0),
        Value::Number(number) => {
            out.push(0xcf);
            out.extend(number.as_u64().unwrap().to_be_bytes());
        }
        Value::String(text) => {
            out.extend([0xd9, text.len() as u8]);
            out.extend(text.as_bytes());
        }
        Value::Array(items) => {
            out.extend([0xdc, 0, items.len() as u8]);
            items.iter().for_each(|item| pack(item, out));
        }
        Value::Object(items) => {
            out.extend([0xde, 0, items.len() as u8]);
            for (key, item) in items {
                pack(&json!(key), out);
                pack(item, out);
            }
        }
        Value::Bool(_) => out.push(0xc3),
    }
}

/// A value in the first segment: its length and its bytes.
fn value(bytes: &[u8]) -> Vec<u8> {
    [numbers(&[bytes.len() as u64]), bytes.to_vec()].concat()
}

fn case(file: &'static str, tries: &'static str, refused: &'static str, (expect, frame): (Expect, Vec<u8>)) -> Case {
    let bytes = [vec![expect as u8], frame].concat();
    Case { file, tries, refused, bytes }
}

fn values(expect: Expect, bytes: &[u8]) -> (Expect, Vec<u8>) {
    (expect, frame(&head(), &[bytes]))
}

/// A message with one matrix of this header and these bytes.
fn matrix(header: Value, bytes: &[u8]) -> (Expect, Vec<u8>) {
    let mut packed = Vec::new();
    pack(&header, &mut packed);
    (Expect::Matrix, frame(&head(), &[&value(&packed), bytes]))
}

pub fn cases() -> Vec<Case> {
    let mut cases = frames();
    cases.extend(contents());
    cases.extend(tensors());
    cases
}

fn frames() -> Vec<Case> {
    let short = "a packet is broken: it is too short";
    vec![
        Case { file: "empty", tries: "no byte at all", refused: "there is nothing", bytes: Vec::new() },
        case("cut-in-lengths", "ends in its lengths", short, (Expect::Text, vec![0; 15])),
        case(
            "head-overflow",
            "a head of all bytes there can be",
            "a packet is broken: a length overflows",
            (Expect::Text, numbers(&[u64::MAX, 0])),
        ),
        case(
            "head-beyond",
            "a head that ends behind the frame",
            short,
            (Expect::Text, numbers(&[5, 0, 0])[..20].to_vec()),
        ),
        case(
            "segments-2-to-the-64",
            "as many segments as can be counted",
            "a packet is broken: too many segments",
            (Expect::Text, numbers(&[0, u64::MAX])),
        ),
        case(
            "segments-2-to-the-20",
            "as many segments as are allowed, and none of them",
            short,
            (Expect::Text, numbers(&[0, 1 << 20])),
        ),
        case("segment-overflow", "a segment of all bytes there can be", "a packet is broken: a length overflows", {
            (Expect::Text, [numbers(&[4, 1, u64::MAX]), head()].concat())
        }),
        case(
            "segment-beyond",
            "a segment that ends behind the frame",
            short,
            (Expect::Text, [numbers(&[4, 1, 1 << 40]), head()].concat()),
        ),
        case(
            "head-no-message",
            "another head than was expected",
            "a packet is broken: `(alloc::string::String, i32)`: ",
            (Expect::Text, frame(&[0xc1], &[])),
        ),
        case(
            "request-unknown",
            "a request that does not exist",
            "a packet is broken: `(u64, ray_zerocopy::engine::local::protocol::Request)`: unknown variant",
            (Expect::Request, frame(&[0x92, 1, 0xa4, b'D', b'a', b'n', b'c'], &[])),
        ),
        case(
            "answer-unknown",
            "an answer that does not exist",
            "a packet is broken: `(u64, ray_zerocopy::engine::local::protocol::Answer)`: unknown variant",
            (Expect::Answer, frame(&[0x92, 1, 0xa1, b'X'], &[])),
        ),
    ]
}

fn contents() -> Vec<Case> {
    let early = "the message ends too early";
    let text = "`(alloc::string::String, i32, f64, bool, char)`: ";
    vec![
        case("no-values", "a message without its values", early, (Expect::Text, frame(&head(), &[]))),
        case("value-overflow", "a value of all bytes there can be", early, values(Expect::Text, &numbers(&[u64::MAX]))),
        case("value-beyond", "a value that ends behind its segment", early, values(Expect::Text, &numbers(&[9, 0]))),
        case(
            "text-of-4-gib",
            "a text that claims 4 GiB",
            text,
            values(Expect::Text, &value(&[0x95, 0xdb, 0xff, 0xff, 0xff, 0xff, b'x'])),
        ),
        case("bytes-of-4-gib", "bytes that claim 4 GiB", "`alloc::vec::Vec<u8>`: ", {
            let number = value(&[7]);
            values(Expect::Bytes, &[number, value(&[0xc6, 0xff, 0xff, 0xff, 0xff])].concat())
        }),
        case(
            "list-of-4-billion",
            "a list that claims 4 billion items",
            "`serde_json::value::Value`: ",
            values(Expect::Json, &value(&[0xdd, 0xff, 0xff, 0xff, 0xff])),
        ),
        case(
            "map-of-4-billion",
            "a map that claims 4 billion entries",
            "`std::collections::hash::map::HashMap<",
            values(Expect::Map, &value(&[0xdf, 0xff, 0xff, 0xff, 0xff, 0xa1, b'k', 0xdd, 0xff, 0xff, 0xff, 0xff])),
        ),
        case(
            "deep-json",
            "lists in lists in lists",
            "`serde_json::value::Value`: its values are nested more than 256 deep",
            values(Expect::Json, &value(&[0x91; 20_000])),
        ),
        case(
            "deep-type",
            "boxes in boxes in boxes",
            "`ray_zerocopy::fuzz::Nested`: its values are nested more",
            values(Expect::Nested, &value(&[0x81, 0xa7, b'W', b'r', b'a', b'p', b'p', b'e', b'd'].repeat(5000))),
        ),
        case(
            "variant-unknown",
            "a variant that does not exist",
            "`ray_zerocopy::fuzz::Nested`: unknown variant `L`",
            values(Expect::Nested, &value(&[0xa1, b'L'])),
        ),
    ]
}

fn tensors() -> Vec<Case> {
    let header = |dtype: Value, shape: Value, segment: u64| json!({"dtype": dtype, "shape": shape, "segment": segment});
    let quantised = |block: Value| json!({"QFloat": {"value": "Q8S", "store": "Native", "mode": "Symmetric", "tensor": null, "block": block}});
    vec![
        case(
            "tensor-segment",
            "a tensor whose bytes are not there",
            "the message does not have the tensor's bytes",
            matrix(header(json!("F32"), json!([1, 1]), 9), &[0; 4]),
        ),
        case(
            "tensor-rank",
            "another rank than is expected",
            "a tensor of rank 2 is expected, and shape [1, 1, 1] was",
            matrix(header(json!("F32"), json!([1, 1, 1]), 1), &[0; 4]),
        ),
        case(
            "tensor-kind",
            "integers for floating point numbers",
            "a tensor of kind float has no elements of I32",
            matrix(header(json!("I32"), json!([1, 1]), 1), &[0; 4]),
        ),
        case(
            "tensor-short",
            "fewer bytes than the shape needs",
            "F32 of shape [1, 2] does not fit its 4 bytes",
            matrix(header(json!("F32"), json!([1, 2]), 1), &[0; 4]),
        ),
        case(
            "tensor-overflow",
            "a product of dimensions beyond 64 bits",
            "shape [4294967296, 4294967296] has more elements",
            matrix(header(json!("F32"), json!([1_u64 << 32, 1_u64 << 32]), 1), &[0; 4]),
        ),
        case(
            "tensor-quantised",
            "a terabyte of quantised values in 4 bytes",
            "QuantScheme {",
            matrix(header(quantised(Value::Null), json!([1, 1_u64 << 40]), 1), &[0; 4]),
        ),
        case(
            "tensor-block-of-0",
            "scales for blocks of no value",
            "its quantisation has a block of the first 1 dimensions of",
            {
                let block = json!({"size": {"storage": [0, 1, 1, 1, 1], "len": 1}, "dtype": "F32"});
                matrix(header(quantised(block), json!([1, 1]), 1), &[0; 5])
            },
        ),
        case("tensors-2-to-the-60", "a list that claims more tensors than can be", "the message ends too early", {
            let mut count = Vec::new();
            pack(&json!(1_u64 << 60), &mut count);
            values(Expect::Vectors, &value(&count))
        }),
    ]
}

/// Valid messages, one for each kind of values.
pub fn valid() -> Vec<Vec<u8>> {
    let packed = |json: Value| {
        let mut bytes = Vec::new();
        pack(&json, &mut bytes);
        value(&bytes)
    };
    let tensor =
        |segment: u64, dtype: &str, shape: &[u64]| packed(json!({"dtype": dtype, "shape": shape, "segment": segment}));
    let of = |expect: Expect, values: Vec<Vec<u8>>, tensors: &[&[u8]]| {
        let values = values.concat();
        let segments: Vec<_> = std::iter::once(&values[..]).chain(tensors.iter().copied()).collect();
        [vec![expect as u8], frame(&head(), &segments)].concat()
    };
    // A list of a text, an integer, a float, a boolean and a character.
    let fields = [vec![0x95, 0xa1, b'x', 0x07, 0xcb], 1.5_f64.to_be_bytes().to_vec(), vec![0xc3, 0xa1, b'c']].concat();
    vec![
        of(Expect::Text, vec![value(&fields)], &[]),
        of(Expect::Json, vec![packed(json!({"a": [1, {"b": null}], "c": "d"}))], &[]),
        of(Expect::Nested, vec![packed(json!({"Wrapped": {"Node": {"children": ["Leaf"], "note": "n"}}}))], &[]),
        of(Expect::Map, vec![packed(json!({"a": [1, null], "b": []}))], &[]),
        of(Expect::Matrix, vec![tensor(1, "F32", &[2, 3])], &[&[1; 24]]),
        of(Expect::Vectors, vec![packed(json!(2)), tensor(1, "I64", &[2]), tensor(2, "U8", &[0])], &[&[1; 16], &[]]),
        of(Expect::Bytes, vec![packed(json!(7)), value(&[0x92, 1, 2]), packed(json!(null))], &[]),
    ]
}
