//! Ways to send bytes to another process and get as many back: what the benchmark `ipc` compares.
//!
//! The job is that of a remote call. Both sides have the bytes in their own heap, as a tensor has that was just
//! computed, and read every byte they get, as a tensor is that is computed with. So the sender always copies once, and the
//! receiver always touches every page. Each kind of link has a process of its own at the other end, which waits
//! in a system call while the other links are measured.

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::Bytes;
use ipc_channel::IpcError;
use ipc_channel::ipc::{
    self, IpcBytesReceiver, IpcBytesSender, IpcOneShotServer, IpcReceiver, IpcSender, IpcSharedMemory,
};
use ray_zerocopy::__private::transport::{Connection, Outgoing};

use crate::child::{Reaped, this_program};

/// The option with which this program is started as the other end of a link.
pub const PEER: &str = "--peer";
/// How long a peer may take to come up.
const PATIENCE: Duration = Duration::from_secs(30);

/// A way to another process and back.
pub trait Link {
    /// What it is called in the results.
    fn name(&self) -> &'static str;

    /// Sends `payload`, and reads what comes back, which has to be the same.
    ///
    /// # Errors
    /// If something else comes back, or the other process is gone.
    fn round_trip(&mut self, payload: &Payload) -> Result<()>;

    /// Hangs up, and waits for the other process.
    ///
    /// # Errors
    /// If the other process failed.
    fn end(self: Box<Self>) -> Result<()>;
}

/// Bytes to send, in this process's heap, and their checksum.
pub struct Payload {
    heap: Outgoing,
    checksum: u64,
}

impl Payload {
    /// `size` bytes, the same in every process.
    pub fn new(size: usize) -> Self {
        let bytes: Vec<u8> = (0..size).map(|index| (index * 31 + size) as u8).collect();
        let checksum = checksum(&bytes);
        Self { heap: Outgoing { segments: vec![Bytes::from_bytes_vec(bytes)] }, checksum }
    }

    fn bytes(&self) -> &[u8] {
        self.heap.segments.first().map_or(&[], |segment| segment)
    }

    /// Reads every byte of what arrived.
    fn check(&self, arrived: &[u8]) -> Result<()> {
        let (size, expected) = (arrived.len(), self.bytes().len());
        ensure!(size == expected, "{size} bytes arrived, and {expected} were expected");
        ensure!(checksum(arrived) == self.checksum, "other bytes arrived than were sent");
        Ok(())
    }
}

/// Reads every byte.
pub fn checksum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let words = words.iter().fold(0_u64, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)));
    rest.iter().fold(words, |sum, &byte| sum.wrapping_add(byte.into()))
}

/// The payloads that a peer answers with.
#[derive(Default)]
struct Answers(HashMap<usize, Payload>);

impl Answers {
    /// Reads every byte of a request, and gives the answer to it.
    fn to(&mut self, request: &[u8]) -> Result<&Payload> {
        let answer = self.0.entry(request.len()).or_insert_with(|| Payload::new(request.len()));
        answer.check(request)?;
        Ok(answer)
    }
}

/// All links there are, ours first.
///
/// # Errors
/// If a process cannot be started.
pub fn all() -> Result<Vec<Box<dyn Link>>> {
    Ok(vec![Box::new(Ours::new()?), Box::new(Channel::<Vec<u8>>::new()?), Box::new(Channel::<IpcSharedMemory>::new()?)])
}

/// The other end of a link, until the other process hangs up. `kind` is the value of [`PEER`].
///
/// # Errors
/// If something unexpected arrives.
pub fn peer(kind: &str) -> Result<()> {
    match kind.split_once('=') {
        None if kind == Ours::KIND => Ours::serve(),
        Some((<Vec<u8>>::KIND, server)) => Channel::<Vec<u8>>::serve(server),
        Some((IpcSharedMemory::KIND, server)) => Channel::<IpcSharedMemory>::serve(server),
        _ => bail!("{PEER} {kind}: there is no such link"),
    }
}

/// The transport of this workspace, used as the local engine uses it: who waits receives, and each packet has a message
/// beside the payload.
struct Ours {
    connection: Connection,
    peer: Reaped,
    sent: u64,
}

impl Ours {
    const KIND: &str = "ray-zerocopy";

    fn new() -> Result<Self> {
        let (connection, theirs) = Connection::pair()?;
        let mut program = this_program();
        let peer = program.args([PEER, Self::KIND]).stdin(Stdio::from(theirs.into_fd())).spawn();
        Ok(Self { connection, peer: Reaped(peer.context("the peer cannot be started")?), sent: 0 })
    }

    fn serve() -> Result<()> {
        let connection = Connection::from_fd(rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3)?);
        let mut answers = Answers::default();
        while let Some(request) = connection.receive::<u64>()? {
            let segment = request.payload.segments.first().context("a request without a payload")?;
            connection.send(&request.message, &answers.to(segment)?.heap, &[])?;
        }
        Ok(())
    }
}

impl Link for Ours {
    fn name(&self) -> &'static str {
        Self::KIND
    }

    fn round_trip(&mut self, payload: &Payload) -> Result<()> {
        self.sent += 1;
        self.connection.send(&self.sent, &payload.heap, &[])?;
        let answer = self.connection.receive::<u64>()?.context("the peer is gone")?;
        ensure!(answer.message == self.sent, "message {} came back for message {}", answer.message, self.sent);
        payload.check(answer.payload.segments.first().context("an answer without a payload")?)
    }

    fn end(self: Box<Self>) -> Result<()> {
        let Self { connection, peer, .. } = *self;
        drop(connection);
        peer.end()
    }
}

/// A way of the crate `ipc-channel` to send bytes.
trait Carrier: Sized + Send + 'static {
    /// The kind of link.
    const KIND: &str;
    type Sender: serde::Serialize + for<'de> serde::Deserialize<'de> + Send;
    type Receiver: serde::Serialize + for<'de> serde::Deserialize<'de> + Send;

    fn pair() -> Result<(Self::Sender, Self::Receiver)>;
    fn send(sender: &Self::Sender, bytes: &[u8]) -> Result<()>;
    fn receive(receiver: &Self::Receiver) -> Result<Self, IpcError>;
    fn bytes(&self) -> &[u8];
}

/// Through the socket, cut into packets. Bytes only: a message would need a channel with serde.
impl Carrier for Vec<u8> {
    const KIND: &str = "ipc-channel bytes";
    type Sender = IpcBytesSender;
    type Receiver = IpcBytesReceiver;

    fn pair() -> Result<(Self::Sender, Self::Receiver)> {
        Ok(ipc::bytes_channel()?)
    }

    fn send(sender: &Self::Sender, bytes: &[u8]) -> Result<()> {
        Ok(sender.send(bytes)?)
    }

    fn receive(receiver: &Self::Receiver) -> Result<Self, IpcError> {
        receiver.recv()
    }

    fn bytes(&self) -> &[u8] {
        self
    }
}

/// Through a memfd, which both sides map for reading and writing.
impl Carrier for IpcSharedMemory {
    const KIND: &str = "ipc-channel shared memory";
    type Sender = IpcSender<Self>;
    type Receiver = IpcReceiver<Self>;

    fn pair() -> Result<(Self::Sender, Self::Receiver)> {
        Ok(ipc::channel()?)
    }

    fn send(sender: &Self::Sender, bytes: &[u8]) -> Result<()> {
        Ok(sender.send(Self::from_bytes(bytes))?)
    }

    fn receive(receiver: &Self::Receiver) -> Result<Self, IpcError> {
        receiver.recv()
    }

    fn bytes(&self) -> &[u8] {
        self
    }
}

/// Two channels of the crate `ipc-channel`, one for each direction.
struct Channel<C: Carrier> {
    requests: C::Sender,
    answers: C::Receiver,
    peer: Reaped,
}

impl<C: Carrier> Channel<C> {
    fn new() -> Result<Self> {
        let (server, name) = IpcOneShotServer::<(C::Sender, C::Receiver)>::new()?;
        let peer = this_program().args([PEER, &format!("{}={name}", C::KIND)]).stdin(Stdio::null()).spawn();
        let peer = Reaped(peer.context("the peer cannot be started")?);
        // `accept` has no deadline of its own, and would wait for a dead peer.
        let (sender, accepted) = mpsc::channel();
        std::thread::spawn(move || sender.send(server.accept().map(|(_, ends)| ends)));
        let (requests, answers) = accepted.recv_timeout(PATIENCE).context("the peer does not come up")??;
        Ok(Self { requests, answers, peer })
    }

    fn serve(server: &str) -> Result<()> {
        let (requests, inbox) = C::pair()?;
        let (outbox, answers) = C::pair()?;
        IpcSender::connect(server.to_owned())?.send((requests, answers))?;
        let mut payloads = Answers::default();
        loop {
            match C::receive(&inbox) {
                Ok(request) => C::send(&outbox, payloads.to(request.bytes())?.bytes())?,
                Err(IpcError::Disconnected) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl<C: Carrier> Link for Channel<C> {
    fn name(&self) -> &'static str {
        C::KIND
    }

    fn round_trip(&mut self, payload: &Payload) -> Result<()> {
        C::send(&self.requests, payload.bytes())?;
        payload.check(C::receive(&self.answers)?.bytes())
    }

    fn end(self: Box<Self>) -> Result<()> {
        let Self { requests, answers, peer } = *self;
        drop((requests, answers));
        peer.end()
    }
}
