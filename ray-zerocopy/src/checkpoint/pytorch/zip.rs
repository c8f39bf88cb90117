//! Table of contents of a zip archive.
//!
//! `torch.save` stores every entry aligned and without compression, so that a tensor can be read or
//! borrowed in place. Nothing is ever decompressed: an archive cannot claim more bytes than it has.

use std::fs::File;

use crate::arena::io::read_at;

/// Size of the end record without its comment, which has up to 65535 bytes.
const END: usize = 22;
const MAX_COMMENT: u64 = u16::MAX as u64;
/// Maximum size of a table of contents. That of a checkpoint takes about a hundred bytes for each
/// tensor.
const MAX_TABLE: u64 = 64 << 20;
/// Placeholder in a 32-bit field for a number that does not fit and is stored in the extra field
/// instead.
const IN_EXTRA_FIELD: u64 = u32::MAX as u64;

/// Why an archive cannot be read.
#[derive(Debug)]
pub(crate) enum ZipError {
    /// The end record is missing, as in a truncated download.
    Cut(String),
    /// It is inconsistent, or uses an unsupported feature.
    Broken(String),
    /// The file cannot be read.
    Read(std::io::Error),
}

impl From<std::io::Error> for ZipError {
    fn from(error: std::io::Error) -> Self {
        Self::Read(error)
    }
}

fn broken(reason: impl Into<String>) -> ZipError {
    ZipError::Broken(reason.into())
}

/// An entry of an archive.
#[derive(Debug)]
pub(crate) struct ZipEntry {
    pub name: String,
    pub size: u64,
    method: u16,
    encrypted: bool,
    /// Offset of its local header.
    header: u64,
}

/// The entries of an archive, sorted by name.
pub(crate) struct Archive {
    pub entries: Vec<ZipEntry>,
}

impl Archive {
    /// Reads the table of contents of a file that starts like an archive.
    pub(crate) fn read(file: &File, len: u64) -> Result<Self, ZipError> {
        let (count, size, offset) = end(file, len)?;
        if size > MAX_TABLE {
            return Err(broken(format!("its table of contents claims {size} bytes, and {MAX_TABLE} are the most")));
        }
        if offset.checked_add(size).is_none_or(|end| end > len) {
            return Err(broken("its table of contents lies outside of the file"));
        }
        let mut table = vec![0; size as usize];
        read_at(file, &mut table, offset)?;
        let mut entries = Vec::new();
        let mut rest = &table[..];
        while !rest.is_empty() {
            let (entry, after) = central(rest)?;
            entries.push(entry);
            rest = after;
        }
        if entries.len() as u64 != count {
            return Err(broken(format!("its table of contents has {} entries, and claims {count}", entries.len())));
        }
        entries.sort_by(|left: &ZipEntry, right| left.name.cmp(&right.name));
        match entries.windows(2).find(|pair| pair[0].name == pair[1].name) {
            Some(pair) => Err(broken(format!("it has two entries of the name `{}`", pair[0].name))),
            None => Ok(Self { entries }),
        }
    }

    pub(crate) fn find(&self, name: &str) -> Option<&ZipEntry> {
        let at = self.entries.binary_search_by(|entry| entry.name.as_str().cmp(name)).ok()?;
        Some(&self.entries[at])
    }
}

impl ZipEntry {
    /// Returns the file offset of the entry's bytes, which must be stored without compression.
    pub(crate) fn place(&self, file: &File, len: u64) -> Result<u64, ZipError> {
        let name = &self.name;
        if self.encrypted {
            return Err(broken(format!("its entry `{name}` is encrypted")));
        }
        if self.method != 0 {
            return Err(broken(format!(
                "its entry `{name}` is compressed, which `torch.save` never does; unpack it, and pack it without compression"
            )));
        }
        let mut local = [0; 30];
        if self.header.checked_add(30).is_none_or(|end| end > len) {
            return Err(broken(format!("its entry `{name}` lies outside of the file")));
        }
        read_at(file, &mut local, self.header)?;
        if !local.starts_with(b"PK\x03\x04") {
            return Err(broken(format!("its entry `{name}` does not start where its table of contents says")));
        }
        let start = self.header + 30 + u64::from(u16_at(&local, 26)) + u64::from(u16_at(&local, 28));
        match start.checked_add(self.size) {
            Some(end) if end <= len => Ok(start),
            _ => Err(broken(format!("its entry `{name}` claims {} bytes, which lie outside of the file", self.size))),
        }
    }
}

/// Reads the end record: the number of entries, and the size and offset of the table of contents.
fn end(file: &File, len: u64) -> Result<(u64, u64, u64), ZipError> {
    let start = len.saturating_sub(END as u64 + MAX_COMMENT);
    let mut tail = vec![0; (len - start) as usize];
    read_at(file, &mut tail, start)?;
    // The record's comment extends to the end of the file, which distinguishes the record from
    // other bytes that look like it.
    let is_end = |&at: &usize| {
        tail[at..].starts_with(b"PK\x05\x06") && at + END + usize::from(u16_at(&tail, at + 20)) == tail.len()
    };
    let Some(at) = (0..(tail.len() + 1).saturating_sub(END)).rev().find(is_end) else {
        return Err(ZipError::Cut(
            "its table of contents is missing, which stands at the end of a zip archive".to_owned(),
        ));
    };
    let (count, size, offset) =
        (u64::from(u16_at(&tail, at + 10)), u64::from(u32_at(&tail, at + 12)), u64::from(u32_at(&tail, at + 16)));
    if count != u64::from(u16::MAX) && size != IN_EXTRA_FIELD && offset != IN_EXTRA_FIELD {
        return Ok((count, size, offset));
    }
    // For more than 65534 entries or 4 GiB the numbers are in another record. Its offset is stored
    // before this one.
    let Some(locator) = at.checked_sub(20).filter(|&at| tail[at..].starts_with(b"PK\x06\x07")) else {
        return Ok((count, size, offset));
    };
    let place = u64_at(&tail, locator + 8);
    let mut record = [0; 56];
    if place.checked_add(56).is_none_or(|end| end > len) {
        return Err(broken("the record at its end lies outside of the file"));
    }
    read_at(file, &mut record, place)?;
    if !record.starts_with(b"PK\x06\x06") {
        return Err(broken("the record at its end is not where it is said to be"));
    }
    Ok((u64_at(&record, 32), u64_at(&record, 40), u64_at(&record, 48)))
}

/// Parses an entry of the table of contents. Returns it with the remaining bytes.
fn central(bytes: &[u8]) -> Result<(ZipEntry, &[u8]), ZipError> {
    const HEAD: usize = 46;
    if bytes.len() < HEAD || !bytes.starts_with(b"PK\x01\x02") {
        return Err(broken("its table of contents is damaged"));
    }
    let lengths = [28, 30, 32].map(|at| usize::from(u16_at(bytes, at)));
    let [name, extra, comment] = lengths;
    if bytes.len() < HEAD + name + extra + comment {
        return Err(broken("its table of contents ends within an entry"));
    }
    let (flags, method) = (u16_at(bytes, 8), u16_at(bytes, 10));
    let [mut packed, mut size, mut header] = [20, 24, 42].map(|at| u64::from(u32_at(bytes, at)));
    let text = std::str::from_utf8(&bytes[HEAD..HEAD + name]).map_err(|_| broken("a name in it is not UTF-8"))?;
    let mut wide = zip64_field(&bytes[HEAD + name..HEAD + name + extra]);
    // Only the numbers that do not fit are stored there, in this order.
    for number in [&mut size, &mut packed, &mut header] {
        if *number == IN_EXTRA_FIELD
            && let Some((first, rest)) = wide.split_first_chunk()
        {
            (*number, wide) = (u64::from_le_bytes(*first), rest);
        }
    }
    if method == 0 && packed != size {
        return Err(broken(format!("its entry `{text}` has {packed} bytes, and claims {size}")));
    }
    let entry = ZipEntry { name: text.to_owned(), size, method, encrypted: flags & 1 != 0, header };
    Ok((entry, &bytes[HEAD + name + extra + comment..]))
}

/// Finds the extra field with 64-bit numbers (ZIP64).
fn zip64_field(mut extra: &[u8]) -> &[u8] {
    while extra.len() >= 4 {
        let (id, len) = (u16_at(extra, 0), usize::from(u16_at(extra, 2)));
        let Some(field) = extra.get(4..4 + len) else { break };
        if id == 1 {
            return field;
        }
        extra = &extra[4 + len..];
    }
    &[]
}

/// The callers have checked the length.
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom, Write};

    use super::Archive;

    /// A sparse archive of 10 GiB, whose numbers do not fit into 32 bits.
    #[test]
    #[cfg_attr(miri, ignore = "a file of 10 GiB, which has holes")]
    fn archives_beyond_4_gib_are_read() {
        let (header, size, name) = (5_u64 << 30, 5_u64 << 30, b"a/data/0");
        let mut file = tempfile::tempfile().unwrap();
        let mut write = |at: u64, parts: &[&[u8]]| {
            file.seek(SeekFrom::Start(at)).unwrap();
            file.write_all(&parts.concat()).unwrap();
            at + parts.iter().map(|part| part.len() as u64).sum::<u64>()
        };
        let start = write(header, &[b"PK\x03\x04", &[0; 14], &[0xff; 8], &[8, 0, 0, 0], name]);
        let table = start + size;
        let extra = [&[1, 0, 24, 0][..], &size.to_le_bytes(), &size.to_le_bytes(), &header.to_le_bytes()].concat();
        let lengths = [8, 0, extra.len() as u8, 0];
        let entry: [&[u8]; 7] =
            [b"PK\x01\x02", &[0; 16], &[0xff; 8], &lengths, &[0; 10], &[0xff; 4], &[name, &extra[..]].concat()];
        let after = write(table, &entry);
        let counts = [1_u64, 1, after - table, table].map(u64::to_le_bytes).concat();
        let locator = write(after, &[b"PK\x06\x06", &44_u64.to_le_bytes(), &[0; 12], &counts]);
        let end = write(locator, &[b"PK\x06\x07", &[0; 4], &after.to_le_bytes(), &[1, 0, 0, 0]]);
        let len = write(end, &[b"PK\x05\x06", &[0; 4], &[0xff; 12], &[0; 2]]);

        let archive = Archive::read(&file, len).unwrap();
        let entry = archive.find("a/data/0").unwrap();
        assert_eq!((entry.size, entry.place(&file, len).unwrap()), (size, start));
    }
}
