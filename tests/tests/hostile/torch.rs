//! A writer of pickles and archives that PyTorch would never write, independent of the library's
//! reader.

/// A pickled text.
pub fn text(text: &str) -> Vec<u8> {
    [&b"X"[..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
}

pub fn int(number: i64) -> Vec<u8> {
    [&[0x8a, 8][..], &number.to_le_bytes()].concat()
}

pub fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
    [b"(", &items.concat()[..], b"t"].concat()
}

pub fn numbers(numbers: &[i64]) -> Vec<u8> {
    tuple(&numbers.iter().map(|&number| int(number)).collect::<Vec<_>>())
}

pub fn global(module: &str, name: &str) -> Vec<u8> {
    format!("c{module}\n{name}\n").into_bytes()
}

pub fn call(module: &str, name: &str, arguments: &[Vec<u8>]) -> Vec<u8> {
    [global(module, name), tuple(arguments), b"R".to_vec()].concat()
}

/// The pickled persistent id of a storage, with its key and its number of floats.
pub fn storage(key: &str, elements: i64) -> Vec<u8> {
    let named = [text("storage"), global("torch", "FloatStorage"), text(key), text("cpu"), int(elements)];
    [tuple(&named), b"Q".to_vec()].concat()
}

pub fn tensor(storage: Vec<u8>, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    let arguments = [storage, int(offset), numbers(shape), numbers(strides), vec![0x89], b"}".to_vec()];
    call("torch._utils", "_rebuild_tensor_v2", &arguments)
}

/// The valid storage `0`, with 64 floats.
pub fn good() -> Vec<u8> {
    tensor(storage("0", 64), 0, &[8, 8], &[8, 1])
}

pub fn dictionary(pairs: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let pairs: Vec<u8> = pairs.iter().flat_map(|(key, value)| [text(key), value.clone()].concat()).collect();
    [b"}(", &pairs[..], b"u"].concat()
}

pub fn pickle(value: Vec<u8>) -> Vec<u8> {
    [&[0x80, 2][..], &value, b"."].concat()
}

/// An entry of an archive: its name, its bytes, and its fields in the table.
pub struct Entry {
    pub name: &'static str,
    pub bytes: Vec<u8>,
    pub flags: u16,
    pub method: u16,
    pub size: u32,
    pub packed: u32,
}

pub fn entry(name: &'static str, bytes: Vec<u8>) -> Entry {
    let size = bytes.len() as u32;
    Entry { name, bytes, flags: 0, method: 0, size, packed: size }
}

/// The entries that `torch.save` writes for a pickle and one storage of 64 floats.
pub fn entries(pickled: Vec<u8>) -> Vec<Entry> {
    vec![entry("a/data.pkl", pickled), entry("a/byteorder", b"little".to_vec()), entry("a/data/0", vec![0; 256])]
}

/// The archive with its end record of 22 bytes: the number of entries, and the size and offset of
/// the table.
pub fn archive_with(entries: &[Entry], end: impl FnOnce(u16, u32, u32) -> Vec<u8>) -> Vec<u8> {
    let (mut file, mut table) = (Vec::new(), Vec::new());
    for entry in entries {
        let place = file.len() as u32;
        let mut common = [20_u16, entry.flags, entry.method, 0, 0].map(u16::to_le_bytes).concat();
        common.extend([0, entry.packed, entry.size].map(u32::to_le_bytes).concat());
        common.extend([entry.name.len() as u16, 0].map(u16::to_le_bytes).concat());
        file.extend([b"PK\x03\x04", &common[..], entry.name.as_bytes(), &entry.bytes].concat());
        table
            .extend([b"PK\x01\x02\x14\0", &common[..], &[0; 10], &place.to_le_bytes(), entry.name.as_bytes()].concat());
    }
    let end = end(entries.len() as u16, table.len() as u32, file.len() as u32);
    [file, table, end].concat()
}

pub fn end(count: u16, size: u32, place: u32) -> Vec<u8> {
    let counts = [0, 0, count, count].map(u16::to_le_bytes).concat();
    [b"PK\x05\x06", &counts[..], &size.to_le_bytes(), &place.to_le_bytes(), &[0; 2]].concat()
}

pub fn archive(entries: &[Entry]) -> Vec<u8> {
    archive_with(entries, end)
}

/// A file in the format before PyTorch 1.6, with this pickle, the keys of its storages, and the
/// bytes after them.
pub fn legacy(saved: Vec<u8>, keys: &[&str], data: &[u8]) -> Vec<u8> {
    let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.".to_vec();
    let system = pickle(dictionary(&[("little_endian", vec![0x88])]));
    let keys: Vec<u8> = keys.iter().flat_map(|key| text(key)).collect();
    let keys = pickle([b"](", &keys[..], b"e"].concat());
    [magic, pickle(int(1001)), system, pickle(saved), keys, data.to_vec()].concat()
}
