//! Buffered reading of a pickle, which is a range of a file.

use std::fs::File;

use super::PickleError;
use crate::arena::io::read_at;

const BUFFER: usize = 64 << 10;
/// Maximum length of a text or a line. The longest texts that are needed are names of tensors.
const MAX_TEXT: u64 = 1 << 20;

/// Reads a range of a file.
pub(in crate::checkpoint::pytorch) struct Source<'a> {
    file: &'a File,
    /// End of the buffer in the file.
    at: u64,
    end: u64,
    buffer: Vec<u8>,
    used: usize,
}

impl<'a> Source<'a> {
    pub(in crate::checkpoint::pytorch) fn new(file: &'a File, start: u64, end: u64) -> Self {
        Self { file, at: start, end, buffer: Vec::new(), used: 0 }
    }

    /// File offset of the next byte.
    pub(in crate::checkpoint::pytorch) fn position(&self) -> u64 {
        self.at - (self.buffer.len() - self.used) as u64
    }

    /// Number of remaining bytes.
    pub(super) fn left(&self) -> u64 {
        self.end - self.position()
    }

    pub(super) fn byte(&mut self) -> Result<u8, PickleError> {
        if self.used == self.buffer.len() {
            let size = (BUFFER as u64).min(self.end - self.at) as usize;
            if size == 0 {
                return Err(PickleError::Ends(self.end));
            }
            self.buffer.resize(size, 0);
            read_at(self.file, &mut self.buffer, self.at).map_err(|error| PickleError::Broken(error.to_string()))?;
            (self.at, self.used) = (self.at + size as u64, 0);
        }
        self.used += 1;
        Ok(self.buffer[self.used - 1])
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let mut bytes = [0; N];
        for byte in &mut bytes {
            *byte = self.byte()?;
        }
        Ok(bytes)
    }

    pub(super) fn skip(&mut self, len: u64) -> Result<(), PickleError> {
        if len > self.left() {
            return Err(PickleError::Ends(self.end));
        }
        let buffered = (self.buffer.len() - self.used) as u64;
        if len <= buffered {
            self.used += len as usize;
        } else {
            self.at += len - buffered;
            self.buffer.clear();
            self.used = 0;
        }
        Ok(())
    }

    pub(super) fn take(&mut self, len: u64) -> Result<Vec<u8>, PickleError> {
        if len > self.left() {
            return Err(PickleError::Ends(self.end));
        }
        if len > MAX_TEXT {
            return Err(PickleError::Broken(format!("a text in it claims {len} bytes, and {MAX_TEXT} are the most")));
        }
        let mut bytes = Vec::with_capacity(len as usize);
        for _ in 0..len {
            bytes.push(self.byte()?);
        }
        Ok(bytes)
    }

    /// Reads a line, without the line break.
    pub(super) fn line(&mut self) -> Result<Vec<u8>, PickleError> {
        let mut bytes = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => return Ok(bytes),
                _ if bytes.len() as u64 == MAX_TEXT => {
                    return Err(PickleError::Broken(format!("a line of it has more than {MAX_TEXT} bytes")));
                }
                byte => bytes.push(byte),
            }
        }
    }
}
