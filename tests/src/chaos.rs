//! The pipeline and the random numbers of the chaos test.

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

/// A pseudorandom number generator with a seed: xorshift64*.
#[derive(Debug, Clone)]
pub struct SeededRng(u64);

impl SeededRng {
    /// Creates a generator from any seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Returns a random number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % limit
    }

    /// Returns packets that are invalid, or that claim too large sizes.
    pub fn garbage(&mut self) -> Vec<u8> {
        let number = |number: u64| number.to_le_bytes().to_vec();
        match self.below(6) {
            0 => (0..self.below(64) + 1).map(|_| self.below(256) as u8).collect(),
            // A frame in a memfd, without the memfd.
            1 => vec![1],
            // A message of maximal length, maximally many segments, and a segment of maximal
            // length.
            2 => [vec![0], number(u64::MAX), number(0)].concat(),
            3 => [vec![0], number(0), number(u64::MAX)].concat(),
            4 => [vec![0], number(1), number(1), number(u64::MAX - 63), vec![0xc0]].concat(),
            // A message that is not valid MessagePack.
            _ => [vec![0], number(4), number(0), vec![0xdf, 0xff, 0xff, 0xff]].concat(),
        }
    }
}

/// The SEQPACKET sockets of this process: the ends of connections between an owner and its workers.
/// Returns an empty list if the limit of descriptors is reached, because the search needs some.
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

/// The result of a system call that needs a descriptor. Returns `None` if the limit of descriptors
/// is reached, which the chaos test lowers.
fn unless_short<T>(result: std::io::Result<T>) -> Option<T> {
    match result {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::MFILE) => None,
        result => Some(result.expect("a process may look at its own descriptors")),
    }
}

/// Sends bytes to the process at the other end of a connection, which may have ended.
pub fn send_garbage(connection: &OwnedFd, bytes: &[u8]) {
    let _gone = send(connection, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
}

/// A list whose serialization announces more items than it has.
#[derive(Debug, Deserialize)]
pub struct FalseLengthHint(pub Vec<u8>);

impl Serialize for FalseLengthHint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(1 << 30))?;
        self.0.iter().try_for_each(|byte| list.serialize_element(byte))?;
        list.end()
    }
}

/// A row that kills the worker of its batch.
pub const DEADLY: u64 = u64::MAX;
/// A row that is an error.
pub const BAD: u64 = u64::MAX - 1;

/// A pipeline whose methods answer, panic, kill their process, or send garbage.
#[derive(Pipeline)]
#[pipeline(init = ChaosModel::new)]
pub struct ChaosModel {
    /// The weights.
    pub layer: Linear,
    /// Number of `count` calls: the state of an actor.
    #[pipeline(skip)]
    pub calls: u64,
}

#[ray_zerocopy::remote]
impl ChaosModel {
    /// 1 MiB of weights.
    #[remote(skip)]
    pub fn new(device: &Device) -> Self {
        Self { layer: LinearConfig::new(512, 512).init(device), calls: 0 }
    }

    /// Returns a value that the caller can check.
    pub fn compute(&self, x: u64) -> u64 {
        x.wrapping_mul(3) + 1
    }

    /// Adds 1 to each number.
    pub fn add_one(&self, x: Tensor<1>) -> Tensor<1> {
        x.add_scalar(1.0)
    }

    /// Returns the number of bytes, which are sent through serde.
    pub fn byte_count(&self, bytes: Vec<u8>) -> usize {
        bytes.len()
    }

    /// Is never called, because its argument cannot be deserialized.
    pub fn receive(&self, list: FalseLengthHint) -> usize {
        list.0.len()
    }

    /// Returns a value that cannot be serialized.
    pub fn secret(&self) -> Unwritable {
        Unwritable
    }

    /// Sleeps.
    pub fn sleep(&self, millis: u64) -> u64 {
        std::thread::sleep(Duration::from_millis(millis));
        millis
    }

    /// Panics.
    pub fn panic_sometimes(&self, x: u64) -> u64 {
        panic!("panic_sometimes {x}")
    }

    /// Kills the process of the worker.
    pub fn kill_worker(&self) {
        kill_myself();
    }

    /// Sends garbage to the owner before the reply.
    pub fn send_garbage(&self, bytes: Vec<u8>) -> usize {
        connections().iter().for_each(|connection| send_garbage(connection, &bytes));
        bytes.len()
    }

    /// Returns values that the callers can check. [`DEADLY`] kills the process, and [`BAD`] is an error
    /// of its row.
    #[remote(batch)]
    pub fn compute_rows(&self, rows: Vec<u64>) -> Vec<Result<u64, String>> {
        if rows.contains(&DEADLY) {
            kill_myself();
        }
        rows.into_iter().map(|x| if x == BAD { Err("bad".to_owned()) } else { Ok(x.wrapping_mul(3) + 1) }).collect()
    }

    /// Counts up from a number, with a tensor for each.
    #[remote(stream)]
    pub fn count_up(&self, start: u64, count: u64, large: bool) -> impl Iterator<Item = (u64, Tensor<1>)> {
        let len = if large { 100_000 } else { 10 };
        (start..start + count).map(move |number| (number, Tensor::full([len], number as f32, &Device::flex())))
    }

    /// Marks a call in a file that has one byte for each, and says whether it was cancelled meanwhile.
    pub fn mark(&self, file: String, call: u64) -> bool {
        let file = std::fs::File::options().write(true).open(file).expect("the test has created the file");
        rustix::io::pwrite(&file, &[1], call).expect("the test's file can be written");
        ray_zerocopy::cancelled()
    }

    /// Keeps the worker busy until the file exists.
    pub fn wait_for(&self, file: String) {
        while !std::fs::exists(&file).expect("the test's folder can be read") {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Returns the state.
    pub fn calls_so_far(&self) -> u64 {
        self.calls
    }

    /// Changes the state.
    pub fn count(&mut self) -> u64 {
        self.calls += 1;
        self.calls
    }
}
