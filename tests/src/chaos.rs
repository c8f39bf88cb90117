//! A pipeline for the chaos test: it does what it is asked, or misbehaves in every way there is.

use std::os::fd::OwnedFd;
use std::time::Duration;

use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use ray_zerocopy::Pipeline;
use rustix::io::Errno;
use rustix::net::sockopt::socket_type;
use rustix::net::{SendFlags, SocketType, send};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Serialize, Serializer};

use crate::models::{Unwritable, kill_myself};

/// Numbers that are the same whenever the seed is: xorshift64*.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// From a seed, any of which is good.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Less than `sides`.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }

    /// Bytes that mean nothing, or claim too much.
    pub fn garbage(&mut self) -> Vec<u8> {
        let number = |number: u64| number.to_le_bytes().to_vec();
        match self.roll(6) {
            0 => (0..self.roll(64) + 1).map(|_| self.roll(256) as u8).collect(),
            // A frame in a memfd that is not there.
            1 => vec![1],
            // A message of endless length, endless segments, and a segment of endless length.
            2 => [vec![0], number(u64::MAX), number(0)].concat(),
            3 => [vec![0], number(0), number(u64::MAX)].concat(),
            4 => [vec![0], number(1), number(1), number(u64::MAX - 63), vec![0xc0]].concat(),
            // A message that is no message.
            _ => [vec![0], number(4), number(0), vec![0xdf, 0xff, 0xff, 0xff]].concat(),
        }
    }
}

/// The sockets of this process that have packets: the ends of connections between an owner and its workers. Empty while the limit of
/// descriptors leaves none to look with.
pub fn connections() -> Vec<OwnedFd> {
    let Some(myself) = unless_short(pidfd_open(getpid(), PidfdFlags::empty()).map_err(Into::into)) else {
        return Vec::new();
    };
    let Some(numbers) = unless_short(std::fs::read_dir("/proc/self/fd")) else { return Vec::new() };
    let numbers = numbers.flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    // Another thread may have closed it meanwhile.
    let copies = numbers.filter_map(|number| pidfd_getfd(&myself, number, PidfdGetfdFlags::empty()).ok());
    copies.filter(|copy| socket_type(copy).is_ok_and(|kind| kind == SocketType::SEQPACKET)).collect()
}

/// The result of a system call that needs a descriptor, or `None` if the limit of descriptors refuses it, as chaos makes it.
fn unless_short<T>(result: std::io::Result<T>) -> Option<T> {
    match result {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::MFILE) => None,
        result => Some(result.expect("a process may look at its own descriptors")),
    }
}

/// Says something to whoever is at the other end. That it may be gone is what chaos is.
pub fn babble(connection: &OwnedFd, bytes: &[u8]) {
    let _gone = send(connection, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
}

/// A list that says it is longer than it is.
#[derive(Debug, Deserialize)]
pub struct Boast(pub Vec<u8>);

impl Serialize for Boast {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(1 << 30))?;
        self.0.iter().try_for_each(|byte| list.serialize_element(byte))?;
        list.end()
    }
}

/// See the module.
#[derive(Pipeline)]
#[pipeline(init = Crew::new)]
pub struct Crew {
    /// The weights.
    pub oar: Linear,
    /// An actor's state.
    #[pipeline(skip)]
    pub strokes: u64,
}

#[ray_zerocopy::remote]
impl Crew {
    /// 1 MiB of weights.
    #[remote(skip)]
    pub fn new(device: &Device) -> Self {
        Self { oar: LinearConfig::new(512, 512).init(device), strokes: 0 }
    }

    /// Always right.
    pub fn row(&self, x: u64) -> u64 {
        x.wrapping_mul(3) + 1
    }

    /// As many bytes as came, and one more in each.
    pub fn carry(&self, x: Tensor<1>) -> Tensor<1> {
        x.add_scalar(1.0)
    }

    /// How many bytes came, through serde.
    pub fn swallow(&self, bytes: Vec<u8>) -> usize {
        bytes.len()
    }

    /// Never called: the argument does not arrive.
    pub fn listen(&self, boast: Boast) -> usize {
        boast.0.len()
    }

    /// A result that cannot travel.
    pub fn secret(&self) -> Unwritable {
        Unwritable
    }

    /// Takes a while.
    pub fn dawdle(&self, millis: u64) -> u64 {
        std::thread::sleep(Duration::from_millis(millis));
        millis
    }

    /// Panics.
    pub fn mutiny(&self, x: u64) -> u64 {
        panic!("mutiny {x}")
    }

    /// Dies as of `kill -9`.
    pub fn drown(&self) {
        kill_myself();
    }

    /// Says something to its owner that nobody has asked, and then what was asked.
    pub fn babble(&self, bytes: Vec<u8>) -> usize {
        connections().iter().for_each(|connection| babble(connection, &bytes));
        bytes.len()
    }

    /// Changes state.
    pub fn stroke(&mut self) -> u64 {
        self.strokes += 1;
        self.strokes
    }
}
