//! The opcodes of pickles, from protocol 0 to protocol 5.

use super::PickleError;
use super::machine::{Machine, broken};
use super::source::Source;
use super::value::{Pickle, Value};

/// Maximum size of a pickle in bytes. The pickle of a state dict takes about two hundred for each
/// tensor.
const MAX_PICKLE: u64 = 256 << 20;

/// Reads one pickle up to its end. Following bytes are not consumed.
pub(in crate::checkpoint::pytorch) fn read(source: &mut Source<'_>) -> Result<Pickle, PickleError> {
    let start = source.position();
    let mut machine = Machine::new();
    loop {
        if source.position() - start > MAX_PICKLE {
            return Err(PickleError::Broken(format!("its pickle has more than {MAX_PICKLE} bytes")));
        }
        match source.byte()? {
            b'.' => return machine.finish(source, start),
            byte => step(byte, &mut machine, source)?,
        }
    }
}

fn step(byte: u8, machine: &mut Machine, source: &mut Source<'_>) -> Result<(), PickleError> {
    match byte {
        // PROTO, FRAME
        0x80 => match source.byte()? {
            0..=5 => Ok(()),
            version => {
                Err(PickleError::Broken(format!("it is a pickle of protocol {version}, and 5 is the last one known")))
            }
        },
        0x95 => source.array::<8>().map(drop),
        // Stack and memo: MARK, POP, POP_MARK, DUP, the PUTs and GETs, MEMOIZE
        b'(' => {
            machine.mark();
            Ok(())
        }
        b'0' => machine.drop_top(),
        b'1' => machine.marked().map(drop),
        b'2' => {
            let top = machine.top()?;
            machine.again(top);
            Ok(())
        }
        b'q' => machine.remember(source.byte()?.into()),
        b'r' => machine.remember(u32::from_le_bytes(source.array()?)),
        b'p' => machine.remember(decimal(source)?),
        0x94 => machine.remember_next(),
        b'h' => machine.recall(source.byte()?.into()),
        b'j' => machine.recall(u32::from_le_bytes(source.array()?)),
        b'g' => machine.recall(decimal(source)?),
        _ => constant(byte, machine, source),
    }
}

/// Constants.
fn constant(byte: u8, machine: &mut Machine, source: &mut Source<'_>) -> Result<(), PickleError> {
    match byte {
        b'N' => machine.again(Machine::NONE),
        0x88 => machine.again(Machine::TRUE),
        0x89 => machine.again(Machine::FALSE),
        b'K' => return machine.push(Value::Int(source.byte()?.into())),
        b'M' => return machine.push(Value::Int(u16::from_le_bytes(source.array()?).into())),
        b'J' => return machine.push(Value::Int(i32::from_le_bytes(source.array()?).into())),
        b'I' => match &source.line()?[..] {
            b"00" => machine.again(Machine::FALSE),
            b"01" => machine.again(Machine::TRUE),
            line => return machine.push(integer(line)),
        },
        b'L' => {
            let line = source.line()?;
            return machine.push(integer(line.strip_suffix(b"L").unwrap_or(&line)));
        }
        b'F' => {
            source.line()?;
            return machine.push(Value::Number);
        }
        b'G' => {
            source.array::<8>()?;
            return machine.push(Value::Number);
        }
        0x8a => {
            let len = source.byte()?.into();
            return long(len, machine, source);
        }
        0x8b => {
            let len = u32::from_le_bytes(source.array()?).into();
            return long(len, machine, source);
        }
        _ => return text(byte, machine, source),
    }
    Ok(())
}

/// Texts and bytes.
fn text(byte: u8, machine: &mut Machine, source: &mut Source<'_>) -> Result<(), PickleError> {
    let len: u64 = match byte {
        // SHORT_BINSTRING, SHORT_BINUNICODE, SHORT_BINBYTES
        b'U' | 0x8c | b'C' => source.byte()?.into(),
        // BINSTRING, BINUNICODE, BINBYTES
        b'T' | b'X' | b'B' => u32::from_le_bytes(source.array()?).into(),
        // BINUNICODE8, BINBYTES8, BYTEARRAY8
        0x8d | 0x8e | 0x96 => u64::from_le_bytes(source.array()?),
        // STRING, UNICODE
        b'S' | b'V' => {
            let line = source.line()?;
            let quoted = line.len() >= 2 && line.first() == line.last() && matches!(line[0], b'\'' | b'"');
            return machine.push(utf8(if byte == b'S' && quoted { line[1..line.len() - 1].to_vec() } else { line }));
        }
        _ => return collection(byte, machine, source),
    };
    if matches!(byte, b'C' | b'B' | 0x8e | 0x96) {
        source.skip(len)?;
        return machine.push(Value::Bytes);
    }
    let bytes = source.take(len)?;
    machine.push(utf8(bytes))
}

/// Tuples, lists, dictionaries and sets.
fn collection(byte: u8, machine: &mut Machine, source: &mut Source<'_>) -> Result<(), PickleError> {
    match byte {
        b')' => machine.push(Value::Tuple(Box::default())),
        // TUPLE1, TUPLE2, TUPLE3
        0x85..=0x87 => {
            let mut items = (0x85..=byte).map(|_| machine.pop()).collect::<Result<Vec<_>, _>>()?;
            items.reverse();
            machine.push(Value::Tuple(items.into()))
        }
        b't' => {
            let items = machine.marked()?;
            machine.push(Value::Tuple(items.into()))
        }
        // EMPTY_LIST, EMPTY_SET
        b']' | 0x8f => machine.push(Value::List(Vec::new())),
        // LIST, FROZENSET
        b'l' | 0x91 => {
            let items = machine.marked()?;
            machine.push(Value::List(items))
        }
        b'a' => {
            let item = machine.pop()?;
            machine.append(&[item])
        }
        // APPENDS, ADDITEMS
        b'e' | 0x90 => {
            let items = machine.marked()?;
            machine.append(&items)
        }
        b'}' => machine.push(Value::Dict(Vec::new())),
        b'd' => {
            let items = machine.marked()?;
            machine.push(Value::Dict(Vec::new()))?;
            machine.set(&items)
        }
        b's' => {
            let (value, key) = (machine.pop()?, machine.pop()?);
            machine.set(&[key, value])
        }
        b'u' => {
            let items = machine.marked()?;
            machine.set(&items)
        }
        _ => object(byte, machine, source),
    }
}

/// Imports, calls and object construction, which are only recorded.
fn object(byte: u8, machine: &mut Machine, source: &mut Source<'_>) -> Result<(), PickleError> {
    match byte {
        b'c' => {
            let (module, name) = (plain(source.line()?)?, plain(source.line()?)?);
            machine.global(&module, &name)
        }
        // STACK_GLOBAL
        0x93 => {
            let (name, module) = (machine.pop_text()?, machine.pop_text()?);
            machine.global(&module, &name)
        }
        // REDUCE, NEWOBJ
        b'R' | 0x81 => {
            let (arguments, function) = (machine.pop()?, machine.pop()?);
            machine.call(function, arguments)
        }
        // NEWOBJ_EX, which also has named arguments
        0x92 => {
            machine.pop()?;
            let (arguments, function) = (machine.pop()?, machine.pop()?);
            machine.call(function, arguments)
        }
        // INST
        b'i' => {
            let (module, name) = (plain(source.line()?)?, plain(source.line()?)?);
            let arguments = machine.marked()?;
            machine.global(&module, &name)?;
            machine.push(Value::Tuple(arguments.into()))?;
            let (arguments, function) = (machine.pop()?, machine.pop()?);
            machine.call(function, arguments)
        }
        // OBJ
        b'o' => {
            let mut items = machine.marked()?;
            if items.is_empty() {
                return broken("it makes an object of nothing");
            }
            let function = items.remove(0);
            machine.push(Value::Tuple(items.into()))?;
            let arguments = machine.pop()?;
            machine.call(function, arguments)
        }
        // BUILD: sets the state of an object, or the `_metadata` of a state dict
        b'b' => machine.pop().map(drop),
        b'Q' => {
            let name = machine.pop()?;
            machine.push(Value::Persistent(name))
        }
        0x82..=0x84 => broken("it has extension codes, which mean nothing outside of the program that wrote it"),
        0x97 | 0x98 => broken("it has buffers out of band, which are not in the file"),
        b'P' => broken("it names its storages in the way of protocol 0"),
        _ => Err(PickleError::Broken(format!(
            "byte {byte:#04x} at {} is not an opcode of a pickle",
            source.position() - 1
        ))),
    }
}

fn long(len: u64, machine: &mut Machine, source: &mut Source<'_>) -> Result<(), PickleError> {
    if len > 8 {
        source.skip(len)?;
        return machine.push(Value::Number);
    }
    let bytes = source.take(len)?;
    // Two's complement, little-endian.
    let start: i64 = if bytes.last().is_some_and(|last| last & 0x80 != 0) { -1 } else { 0 };
    machine.push(Value::Int(bytes.iter().rev().fold(start, |number, &byte| number << 8 | i64::from(byte))))
}

fn integer(line: &[u8]) -> Value {
    let number = std::str::from_utf8(line).ok().and_then(|text| text.trim().parse().ok());
    number.map_or(Value::Number, Value::Int)
}

fn decimal(source: &mut Source<'_>) -> Result<u32, PickleError> {
    let line = source.line()?;
    let number = std::str::from_utf8(&line).ok().and_then(|text| text.trim().parse().ok());
    number.map_or_else(|| broken("it notes a value under something that is not a number"), Ok)
}

fn plain(bytes: Vec<u8>) -> Result<String, PickleError> {
    String::from_utf8(bytes).or_else(|_| broken("a name in it is not UTF-8"))
}

/// Texts of Python 2 may have any encoding.
fn utf8(bytes: Vec<u8>) -> Value {
    String::from_utf8(bytes).map_or(Value::Bytes, |text| Value::Text(text.into()))
}
