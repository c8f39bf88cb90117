//! A writer of containers and manifests that the library would never write, independent of its
//! builder.

use serde_json::{Value, json};

/// The version of the manifest that the library reads.
pub const FORMAT: u32 = 2;

/// The subset of CBOR that a container needs, and `Raw` for invalid bytes.
#[derive(Clone)]
pub enum Cbor {
    Uint(u64),
    Text(String),
    Array(Vec<Cbor>),
    Map(Vec<(Cbor, Cbor)>),
    Null,
    Raw(Vec<u8>),
}

impl Cbor {
    pub fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    /// The first bytes of an item: its type, and a length or value that may be false.
    pub fn head(kind: u8, length: u64) -> Vec<u8> {
        let mut head = vec![kind << 5 | 27];
        head.extend(length.to_be_bytes());
        head
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Uint(number) => out.extend(Self::head(0, *number)),
            Self::Text(text) => {
                out.extend(Self::head(3, text.len() as u64));
                out.extend(text.as_bytes());
            }
            Self::Array(items) => {
                out.extend(Self::head(4, items.len() as u64));
                items.iter().for_each(|item| item.write(out));
            }
            Self::Map(items) => {
                out.extend(Self::head(5, items.len() as u64));
                items.iter().for_each(|(key, item)| {
                    key.write(out);
                    item.write(out);
                });
            }
            Self::Null => out.push(0xf6),
            Self::Raw(bytes) => out.extend(bytes),
        }
    }

    /// Converts JSON as serde does: numbers, texts, lists, objects and null.
    pub fn of(json: &Value) -> Self {
        match json {
            Value::Number(number) => Self::Uint(number.as_u64().unwrap()),
            Value::String(text) => Self::text(text),
            Value::Array(items) => Self::Array(items.iter().map(Self::of).collect()),
            Value::Object(items) => {
                Self::Map(items.iter().map(|(key, item)| (Self::text(key), Self::of(item))).collect())
            }
            _ => Self::Null,
        }
    }
}

/// A tensor of the container.
#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    pub dtype: Value,
    pub shape: Vec<u64>,
    pub start: u64,
    pub end: u64,
}

/// An arena to be written: valid until a case changes a part of it.
#[derive(Clone)]
pub struct Draft {
    pub version: u16,
    pub tensors: Vec<Tensor>,
    pub manifest: Value,
    /// Replaces the manifest above.
    pub text: Option<String>,
    /// Whether to compute the fingerprint from the manifest's tensors.
    pub fingerprint: bool,
    /// Replaces the checksum of the manifest.
    pub checksum: Option<String>,
    /// Items of the head before the tensors.
    pub extra: Vec<(Cbor, Cbor)>,
    /// Replaces the tensors.
    pub instead: Option<Cbor>,
    /// A number that is added to the size of the head in the header.
    pub longer: i64,
    /// The bytes of the tensors.
    pub data: Vec<u8>,
}

fn tensor(name: &str, dtype: &str, shape: &[u64], start: u64, end: u64) -> Tensor {
    Tensor { name: name.to_owned(), dtype: json!(dtype), shape: shape.to_vec(), start, end }
}

impl Draft {
    /// Two tensors, one of them tied, and a copied field.
    pub fn valid() -> Self {
        let mut data: Vec<u8> = (0..24).collect();
        data.resize(256, 0);
        data.extend(100..116);
        data.resize(512, 0);
        data.extend(200..206);
        let blake3 = |range: std::ops::Range<usize>| blake3::hash(&data[range]).to_hex().to_string();
        let manifest = json!({
            "format": FORMAT,
            "pipeline": "hostile::Model",
            "fingerprint": "",
            "tensors": [
                {"path": "a", "blob": 0, "kind": "Float", "dtype": "F32", "shape": [2, 3], "param": 7},
                {"path": "b", "blob": 1, "kind": "Int", "dtype": "I64", "shape": [2], "param": null},
                {"path": "t", "blob": 0, "kind": "Float", "dtype": "F32", "shape": [6], "param": 7},
            ],
            "copies": [{"path": "c", "blob": 2}],
            "flags": [{"path": "d", "enabled": true}],
            "structure": ["e: module"],
            "blobs": [
                {"name": "a", "blake3": blake3(0..24)},
                {"name": "b", "blake3": blake3(256..272)},
                {"name": "copied: c", "blake3": blake3(512..518)},
            ],
        });
        Self {
            version: 1,
            tensors: vec![
                tensor("a", "F32", &[2, 3], 0, 24),
                tensor("b", "I64", &[2], 256, 272),
                tensor("copied: c", "U8", &[6], 512, 518),
            ],
            manifest,
            text: None,
            fingerprint: true,
            checksum: None,
            extra: Vec::new(),
            instead: None,
            longer: 0,
            data,
        }
    }

    /// The head of the container: the table of its tensors, and the manifest.
    pub fn head(&self) -> Vec<u8> {
        let mut manifest = self.manifest.clone();
        if self.fingerprint {
            manifest["fingerprint"] = json!(fingerprint(&manifest));
        }
        let text = self.text.clone().unwrap_or_else(|| manifest.to_string());
        let checksum = self.checksum.clone().unwrap_or_else(|| blake3::hash(text.as_bytes()).to_hex().to_string());
        let described = self.tensors.iter().map(|tensor| {
            let shape = tensor.shape.iter().map(|&dim| Cbor::Uint(dim)).collect();
            let fields = vec![
                (Cbor::text("dtype"), Cbor::of(&tensor.dtype)),
                (Cbor::text("shape"), Cbor::Array(shape)),
                (Cbor::text("data_offsets"), Cbor::Array(vec![Cbor::Uint(tensor.start), Cbor::Uint(tensor.end)])),
            ];
            (Cbor::text(&tensor.name), Cbor::Map(fields))
        });
        let tensors = self.instead.clone().unwrap_or_else(|| Cbor::Map(described.collect()));
        let texts = vec![
            (Cbor::text("ray_zerocopy.blake3"), Cbor::Text(checksum)),
            (Cbor::text("ray_zerocopy.manifest"), Cbor::Text(text)),
        ];
        let mut items = self.extra.clone();
        items.push((Cbor::text("tensors"), tensors));
        items.push((Cbor::text("metadata"), Cbor::Map(texts)));
        let mut head = Vec::new();
        Cbor::Map(items).write(&mut head);
        head
    }

    /// The whole container.
    pub fn bytes(&self) -> Vec<u8> {
        let head = self.head();
        let mut bytes = 0x4255_524e_u32.to_le_bytes().to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend(((head.len() as i64 + self.longer) as u32).to_le_bytes());
        bytes.extend(head);
        bytes.resize(bytes.len().next_multiple_of(256), 0);
        bytes.extend(&self.data);
        bytes
    }
}

/// The schema fingerprint, as the library computes it from plain dtypes.
fn fingerprint(manifest: &Value) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut field = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    field(manifest["pipeline"].as_str().unwrap_or_default().as_bytes());
    for tensor in manifest["tensors"].as_array().into_iter().flatten() {
        field(tensor["path"].as_str().unwrap_or_default().as_bytes());
        field(tensor["dtype"].as_str().unwrap_or_default().as_bytes());
        tensor["shape"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_u64)
            .for_each(|dim| field(&dim.to_le_bytes()));
    }
    hasher.finalize().to_hex().to_string()
}
