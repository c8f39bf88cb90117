//! Malicious files in the format of `torch.save`: pickles with imports, and inconsistent archives.

use super::Case;
use super::torch::{
    Entry, archive, archive_with, call, dictionary, end, entries, entry, global, good, legacy, numbers, pickle,
    storage, tensor, text, tuple,
};

fn case(file: &'static str, tries: &'static str, refused: &'static str, bytes: Vec<u8>) -> Case {
    Case { file, tries, refused, bytes }
}

/// A valid archive with a malicious pickle.
fn state(file: &'static str, tries: &'static str, refused: &'static str, value: Vec<u8>) -> Case {
    case(file, tries, refused, archive(&entries(pickle(value))))
}

pub fn cases() -> Vec<Case> {
    [imports(), shapes(), machines(), archives(), old()].into_iter().flatten().collect()
}

/// Valid seeds of the fuzz targets: a pickle, an archive and a file of the old format.
pub fn valid() -> [Vec<u8>; 3] {
    let saved = dictionary(&[("a", good()), ("b", tensor(storage("0", 64), 8, &[4, 8], &[1, 4]))]);
    let data = [&64_u64.to_le_bytes()[..], &[0; 256]].concat();
    [pickle(saved.clone()), archive(&entries(pickle(saved.clone()))), legacy(saved, &["0"], &data)]
}

fn imports() -> Vec<Case> {
    let system = || call("os", "system", &[text("touch hostile")]);
    let stack = [text("posix"), text("system"), vec![0x93], tuple(&[text("touch hostile")]), b"R".to_vec()].concat();
    vec![
        state("imports-system.pt", "a call of the shell", "it imports `os.system`, which", system()),
        state(
            "imports-beside.pt",
            "a call of the shell beside a right tensor",
            "it imports `posix.system`, which",
            dictionary(&[("state_dict", dictionary(&[("a", good())])), ("optimizer", stack)]),
        ),
        state(
            "imports-eval.pt",
            "a call of `eval`",
            "it imports `__builtin__.eval`, which",
            call("__builtin__", "eval", &[text("1")]),
        ),
        state(
            "imports-instance.pt",
            "an import by another opcode",
            "it imports `subprocess.Popen`, which",
            [b"(", &text("sh")[..], b"isubprocess\nPopen\n"].concat(),
        ),
        state(
            "imports-attribute.pt",
            "a way to all modules through the attributes of a class that is allowed",
            "it imports `collections.OrderedDict.__init__.__globals__`, which",
            global("collections", "OrderedDict.__init__.__globals__"),
        ),
        state(
            "imports-bytes.pt",
            "a pickle in a pickle, which Python unpickles too",
            "it cannot be read: tensor `a`: `torch.storage._load_from_bytes`",
            dictionary(&[("a", call("torch.storage", "_load_from_bytes", &[text("cos\nsystem\n.")])), ("b", good())]),
        ),
        case(
            "imports-old.pt",
            "a call of the shell in a file of old",
            "it imports `os.system`, which",
            legacy(system(), &[], &[]),
        ),
    ]
}

fn shapes() -> Vec<Case> {
    let fits = "it is corrupted: tensor `a`: shape";
    let of = |value: Vec<u8>| dictionary(&[("a", value)]);
    let all = |offset, shape: &[i64], strides: &[i64]| of(tensor(storage("0", 64), offset, shape, strides));
    // Many different views of one storage: the arguments are memoised once.
    let views: Vec<u8> = (0..64)
        .flat_map(|at: i64| {
            let name = [&[0x8c, 3][..], format!("v{at:02}").as_bytes()].concat();
            let number = |number: i64| vec![b'K', number as u8];
            let arguments =
                [b"h\x02".to_vec(), number(at % 8), [number(56 - at / 8), vec![0x85]].concat(), b"h\x03N}".to_vec()];
            [name, b"h\x01".to_vec(), tuple(&arguments), b"R".to_vec()].concat()
        })
        .collect();
    let noted = [
        global("torch._utils", "_rebuild_tensor_v2"),
        b"q\x010".to_vec(),
        storage("0", 64),
        b"q\x020".to_vec(),
        numbers(&[1]),
        b"q\x030".to_vec(),
    ];
    let shifted = [&noted.concat()[..], b"}(", &views, b"u"].concat();
    vec![
        state(
            "shape-overflow.pt",
            "a product of dimensions beyond 64 bits",
            fits,
            all(0, &[1 << 40, 1 << 40], &[0, 0]),
        ),
        state("stride-overflow.pt", "elements as far apart as can be", fits, all(0, &[3, 2], &[i64::MAX, 1])),
        state("offset-overflow.pt", "a first element behind all memory", fits, all(i64::MAX, &[8], &[1])),
        state("offset-beyond.pt", "a last element behind its storage", fits, all(1, &[64], &[1])),
        state(
            "shape-minus-1.pt",
            "a dimension below zero",
            "it cannot be read: tensor `a`: its shape has something",
            all(0, &[-1], &[1]),
        ),
        state(
            "dimensions-17.pt",
            "more dimensions than a tensor has",
            "it cannot be read: tensor `a`: it has 17 dimensions",
            all(0, &[1; 17], &[1; 17]),
        ),
        state(
            "expanded.pt",
            "a terabyte that is one element",
            "it cannot be read: tensor `a`: it is expanded",
            all(0, &[1 << 38], &[0]),
        ),
        state(
            "storage-beyond.pt",
            "a storage of a terabyte",
            "it is corrupted: tensor `a`: its storage `0` claims 274877906944 elements",
            of(tensor(storage("0", 1 << 38), 0, &[8], &[1])),
        ),
        state(
            "storage-elsewhere.pt",
            "a storage in another file",
            "it is corrupted: tensor `a`: its storage `../../../etc/passwd` is not in the file",
            of(tensor(storage("../../../etc/passwd", 8), 0, &[8], &[1])),
        ),
        state(
            "strides-missing.pt",
            "fewer strides than dimensions",
            "it cannot be read: tensor `a`: it has 2 dimensions, and 1 strides",
            all(0, &[2, 2], &[1]),
        ),
        state("views.pt", "few bytes that are seen in many ways", "it is corrupted: its tensors claim", shifted),
    ]
}

fn machines() -> Vec<Case> {
    let none = "it has no state dict: it has no tensor";
    let ends = "it is corrupted: its pickle does not end";
    let again = "it is corrupted: its pickle names the same values again and again";
    // Each list contains the previous one ten times.
    let bomb: Vec<u8> = (1..=30_u8).fold(b"]q\0".to_vec(), |so_far, level| {
        let ten = [b'h', level - 1].repeat(10);
        [&so_far[..], b"](", &ten, &[b'e', b'q', level]].concat()
    });
    // The same with dictionaries, under the key of a state dict.
    let shared = (1..=30_u8).fold([b"}", &text("x")[..], &good(), b"sq\0"].concat(), |so_far, level| {
        let pairs: Vec<u8> = (0..10).flat_map(|at| [text(&at.to_string()), vec![b'h', level - 1]].concat()).collect();
        [&so_far[..], b"}(", &pairs, &[b'u', b'q', level]].concat()
    });
    let deep = [&b"(".repeat(100_000)[..], &b"t".repeat(100_000)].concat();
    vec![
        state("cycle.pt", "a dictionary that holds itself", none, [b"}q\0", &text("a")[..], b"h\0s"].concat()),
        state("cycle-list.pt", "a list that holds itself", none, b"]q\0h\0a".to_vec()),
        state("bomb.pt", "lists of lists, each ten times: more than there are atoms", again, bomb),
        state("bomb-of-tensors.pt", "dictionaries of dictionaries of one tensor", again, shared),
        state("deep.pt", "tuples in tuples in tuples", none, deep),
        state("text-of-4-gib.pt", "a text that is longer than the file", ends, b"X\xff\xff\xff\xff".to_vec()),
        state(
            "bytes-of-2-to-the-63.pt",
            "bytes that are longer than any file",
            ends,
            [&[0x8e][..], &[0xff; 8]].concat(),
        ),
        state("no-end.pt", "a pickle without an end", ends, b"\x95".to_vec()),
        state(
            "memo.pt",
            "a value that was never noted",
            "it is corrupted: it recalls value 4294967295",
            b"j\xff\xff\xff\xff".to_vec(),
        ),
        state("stack.pt", "a call of nothing", "it is corrupted: it takes a value from an empty stack", b"R".to_vec()),
        state("mark.pt", "a tuple without a start", "it is corrupted: it has no mark", b"t".to_vec()),
        state(
            "below-mark.pt",
            "a value from below a mark",
            "it is corrupted: it takes a value from below a mark",
            b"N(a".to_vec(),
        ),
        state("opcode.pt", "a byte that is not an opcode", "it is corrupted: byte 0x07 at", vec![7]),
        state(
            "protocol-9.pt",
            "a protocol that is not known",
            "it is corrupted: it is a pickle of protocol 9",
            vec![0x80, 9],
        ),
        state("odd.pt", "a key without a value", "it is corrupted: it sets a key without", b"}(Nu".to_vec()),
    ]
}

fn archives() -> Vec<Case> {
    let right = || entries(pickle(dictionary(&[("a", good())])));
    let spoiled = |spoil: fn(&mut Vec<Entry>)| {
        let mut entries = right();
        spoil(&mut entries);
        archive(&entries)
    };
    // The 32-bit fields are set to refer to the 64-bit fields of a record at this offset.
    let wide = |place: u64| {
        archive_with(&right(), |_, _, _| {
            [b"PK\x06\x07\0\0\0\0", &place.to_le_bytes()[..], b"\x01\0\0\0", &end(u16::MAX, u32::MAX, u32::MAX)]
                .concat()
        })
    };
    vec![
        case(
            "zip-bomb.pt",
            "a pickle of 4 GiB in a few bytes",
            "it is corrupted: its entry `a/data.pkl` is compressed",
            spoiled(|entries| (entries[0].method, entries[0].size) = (8, u32::MAX - 1)),
        ),
        case(
            "zip-bomb-storage.pt",
            "a storage of 4 GiB in a few bytes",
            "it is corrupted: its entry `a/data/0` is compressed",
            spoiled(|entries| (entries[2].method, entries[2].size) = (8, u32::MAX - 1)),
        ),
        case(
            "zip-beyond.pt",
            "an entry that ends behind the file",
            "it is corrupted: its entry `a/data/0` claims 4294967294 bytes",
            spoiled(|entries| (entries[2].packed, entries[2].size) = (u32::MAX - 1, u32::MAX - 1)),
        ),
        case(
            "zip-encrypted.pt",
            "an entry that is encrypted",
            "it is corrupted: its entry `a/data.pkl` is encrypted",
            spoiled(|entries| entries[0].flags = 1),
        ),
        case(
            "zip-twice.pt",
            "two pickles of one name",
            "it is corrupted: it has two entries of the name `a/data.pkl`",
            spoiled(|entries| entries.push(entry("a/data.pkl", pickle(call("os", "system", &[]))))),
        ),
        case(
            "zip-table-of-2-gib.pt",
            "a table of contents of 2 GiB",
            "it is corrupted: its table of contents claims 2147483647 bytes",
            archive_with(&right(), |count, _, place| end(count, i32::MAX as u32, place)),
        ),
        case(
            "zip-table-beyond.pt",
            "a table of contents behind the file",
            "it is corrupted: its table of contents lies outside",
            archive_with(&right(), |count, size, _| end(count, size, u32::MAX - 1)),
        ),
        case(
            "zip-count.pt",
            "more entries than there are",
            "it is corrupted: its table of contents has 3 entries, and claims 9",
            archive_with(&right(), |_, size, place| end(9, size, place)),
        ),
        case(
            "zip-table-elsewhere.pt",
            "a table of contents that is not one",
            "it is corrupted: its table of contents is damaged",
            archive_with(&right(), |count, size, _| end(count, size, 0)),
        ),
        case(
            "zip64-beyond.pt",
            "a record behind the file",
            "it is corrupted: the record at its end lies outside",
            wide(u64::MAX - 10),
        ),
        case(
            "zip64-elsewhere.pt",
            "a record that is not one",
            "it is corrupted: the record at its end is not",
            wide(0),
        ),
        case("zip-without-end.pt", "no table of contents", "it is incomplete, as a download that was cut", {
            archive_with(&right(), |_, _, _| Vec::new())
        }),
        case(
            "zip-order.pt",
            "numbers of another byte order",
            "it cannot be read: its numbers are in the byte order `big`",
            spoiled(|entries| entries[1] = entry("a/byteorder", b"big".to_vec())),
        ),
    ]
}

fn old() -> Vec<Case> {
    let saved = || dictionary(&[("a", good())]);
    let data = |elements: u64| [&elements.to_le_bytes()[..], &[0; 256]].concat();
    vec![
        case(
            "old-storage-beyond.pt",
            "a storage that ends behind the file",
            "it is incomplete, as a download that was cut: its storages take",
            legacy(saved(), &["0"], &data(65)),
        ),
        case(
            "old-storage-overflow.pt",
            "a storage of more bytes than there can be",
            "it is corrupted: its storage `0` claims more bytes",
            legacy(saved(), &["0"], &data(u64::MAX)),
        ),
        case(
            "old-key-unknown.pt",
            "a storage that no tensor has",
            "it is corrupted: it lists a storage of which nothing",
            legacy(saved(), &["1"], &data(64)),
        ),
        case(
            "old-key-twice.pt",
            "a storage that is listed twice",
            "it is corrupted: it lists the storage `0` twice",
            legacy(saved(), &["0", "0"], &[data(64), data(64)].concat()),
        ),
        case(
            "old-key-missing.pt",
            "a storage that is not listed",
            "it is corrupted: tensor `a`: its storage `0` is not in the file",
            legacy(saved(), &[], &[]),
        ),
        case(
            "old-cut.pt",
            "ends in a pickle",
            "it is incomplete, as a download that was cut: its pickle does not end",
            {
                let mut cut = legacy(saved(), &["0"], &data(64));
                cut.truncate(120);
                cut
            },
        ),
    ]
}
