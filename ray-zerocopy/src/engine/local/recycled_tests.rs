//! Tests of memory of large messages that is used again: two ends of a connection in this process.

use std::sync::RwLockReadGuard;

use burn::tensor::Bytes;

use super::recycled::Side;
use super::shared_area::SharedArea;
use super::transport::{Connection, Event, Packet, Received};
use crate::engine::message::Outgoing;
use crate::os::sys::memfd;
use crate::os::sys::process_id::NO_FORKS;

const MIB: usize = 1 << 20;

/// Both ends of a connection. No test forks meanwhile: a fork keeps the messages that are received.
struct Ends {
    owner: Connection,
    worker: Connection,
    _no_forks: RwLockReadGuard<'static, ()>,
}

impl Ends {
    fn new(limit: usize) -> Self {
        let no_forks = NO_FORKS.read().unwrap();
        let (area, fd) = SharedArea::create().unwrap();
        let (owner, worker) = Connection::pair().unwrap();
        let owner = owner.with_shared(area).with_recycled(Side::Owner, limit as u64);
        let worker = worker.with_shared(SharedArea::open(fd).unwrap()).with_recycled(Side::Worker, limit as u64);
        Self { owner, worker, _no_forks: no_forks }
    }

    /// Sends a message of the owner's, and says how it went.
    fn send(&self, len: usize, byte: u8) -> (Way, Received<u8>) {
        deliver(&self.owner, &self.worker, len, byte)
    }
}

/// How a message was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    InPacket,
    Sealed,
    NewSegment,
    /// In the segment with this number, which the receiver had.
    Again(u8),
}

fn packet(connection: &Connection, len: usize, byte: u8) -> Packet {
    let payload = Outgoing { segments: vec![Bytes::from_bytes_vec(vec![byte; len])] };
    connection.packet(&byte, &payload).unwrap()
}

fn way(packet: &Packet) -> Way {
    match (&packet.claim, &packet.memfd) {
        (None, None) => Way::InPacket,
        (None, Some(_)) => Way::Sealed,
        (Some(_), Some(_)) => Way::NewSegment,
        (Some(_), None) => Way::Again(packet.bytes[1]),
    }
}

fn deliver(from: &Connection, to: &Connection, len: usize, byte: u8) -> (Way, Received<u8>) {
    let packet = packet(from, len, byte);
    from.send_packet(&packet, &[]).unwrap();
    let received = to.receive::<u8>().unwrap().unwrap();
    assert_intact(&received, len, byte);
    (way(&packet), received)
}

fn assert_intact(received: &Received<u8>, len: usize, byte: u8) {
    let segment = &received.payload.segments[0];
    assert_eq!(received.message, byte);
    assert!(segment[..] == vec![byte; len], "message {byte} has changed");
}

#[test]
#[cfg_attr(miri, ignore = "sockets and memfds, which Miri does not have")]
fn segment_is_used_again_in_both_directions() {
    let ends = Ends::new(64 * MIB);
    for (from, to) in [(&ends.owner, &ends.worker), (&ends.worker, &ends.owner)] {
        assert_eq!(deliver(from, to, MIB, 1).0, Way::NewSegment);
        for byte in 2..100 {
            assert_eq!(deliver(from, to, MIB - usize::from(byte), byte).0, Way::Again(0), "its descriptor was sent");
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "sockets and memfds, which Miri does not have")]
fn small_messages_stay_in_the_packet() {
    assert_eq!(Ends::new(MIB).send(60_000, 1).0, Way::InPacket);
    assert_eq!(Ends::new(0).send(MIB, 1).0, Way::Sealed);
}

#[test]
#[cfg_attr(miri, ignore = "sockets and memfds, which Miri does not have")]
fn message_in_use_is_not_overwritten() {
    let ends = Ends::new(64 * MIB);
    let (_, first) = ends.send(MIB, 1);
    let (way, second) = ends.send(MIB, 2);
    assert_eq!(way, Way::NewSegment);
    drop(first);
    let slice = second.payload.segments[0].slice(100..200);
    drop(second);
    assert_eq!(ends.send(MIB, 3).0, Way::Again(0));
    assert!(slice.iter().all(|&byte| byte == 2), "a slice keeps the whole message");
    // On any thread.
    std::thread::spawn(move || drop(slice)).join().unwrap();
    let (way, _third) = ends.send(MIB, 4);
    assert_eq!(way, Way::Again(0));
    assert_eq!(ends.send(MIB, 5).0, Way::Again(1));
}

#[test]
#[cfg_attr(miri, ignore = "sockets and memfds, which Miri does not have")]
fn receiver_that_keeps_every_message_uses_the_limit_up() {
    for (limit, segments) in [(8 * MIB, 4), (1 << 30, 32)] {
        let ends = Ends::new(limit);
        let (ways, kept): (Vec<_>, Vec<_>) = (0..40).map(|byte| ends.send(MIB + 1, byte)).unzip();
        let expected = |index| if index < segments { Way::NewSegment } else { Way::Sealed };
        assert_eq!(ways, (0..40).map(expected).collect::<Vec<_>>());
        kept.iter().zip(0..).for_each(|(message, byte)| assert_intact(message, MIB + 1, byte));
        drop(kept);
        assert_eq!(ends.send(MIB + 1, 7).0, Way::Again(0));
    }
    assert_eq!(Ends::new(MIB).send(MIB + 1, 1).0, Way::Sealed, "a segment has a multiple of 2 MiB");
}

#[test]
#[cfg_attr(miri, ignore = "sockets and memfds, which Miri does not have")]
fn segments_of_another_size_make_room() {
    let ends = Ends::new(8 * MIB);
    let (_, first) = ends.send(MIB, 1);
    let (_, _second) = ends.send(MIB, 2);
    assert_eq!(ends.send(8 * MIB, 3).0, Way::Sealed, "8 MiB are more than the limit, with the header");
    assert_eq!(ends.send(7 * MIB, 4).0, Way::Sealed, "no room can be made");
    drop(first);
    assert_eq!(ends.send(5 * MIB, 5).0, Way::NewSegment);
    assert_eq!(ends.send(6 * MIB - 4096, 6).0, Way::Again(0));
    assert_eq!(ends.send(7 * MIB, 7).0, Way::Sealed, "the free ones do not suffice");
    // There is no room for a new segment, so one is used that is much too large.
    let (way, kept) = ends.send(100_000, 8);
    assert_eq!(way, Way::Again(0));
    assert_eq!(ends.send(100_000, 9).0, Way::Sealed);
    drop(kept);
    assert_eq!(ends.send(6 * MIB - 4096, 10).0, Way::Again(0));
}

#[test]
#[cfg_attr(miri, ignore = "sockets and memfds, which Miri does not have")]
fn message_that_is_not_sent_leaves_its_segment_free() {
    let ends = Ends::new(64 * MIB);
    drop(packet(&ends.owner, MIB, 1));
    assert_eq!(ends.send(MIB, 2).0, Way::NewSegment, "the receiver does not have the first one");
    drop(packet(&ends.owner, MIB, 3));
    assert_eq!(ends.send(MIB, 4).0, Way::Again(0));
    // The connection lives, and the packet has too many descriptors.
    let null = std::fs::File::open("/dev/null").unwrap();
    let many = vec![std::os::fd::AsFd::as_fd(&null); 300];
    ends.owner.send_packet(&packet(&ends.owner, MIB, 5), &many).unwrap_err();
    assert_eq!(ends.send(MIB, 6).0, Way::Again(0));
}

#[test]
#[cfg_attr(miri, ignore = "sockets and memfds, which Miri does not have")]
fn messages_outlive_their_connection() {
    let ends = Ends::new(64 * MIB);
    let (_, message) = ends.send(MIB, 1);
    drop(ends);
    assert_intact(&message, MIB, 1);
}

#[test]
#[cfg_attr(miri, ignore = "sockets and memfds, which Miri does not have")]
fn claims_of_the_sender_are_checked() {
    let ends = Ends::new(64 * MIB);
    let (_, message) = ends.send(MIB, 1);
    let segment = |number: u8, is_new: u8, len: u64| [&[2, number, is_new][..], &len.to_le_bytes()].concat();
    let refused = |reason: &str| {
        let Ok(Event::Unreadable(error)) = ends.worker.next::<u8>() else { panic!("`{reason}` was received") };
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
        assert!(error.to_string().contains(reason), "{error}");
    };
    let null = std::fs::File::open("/dev/null").unwrap().into();
    let unsealed = memfd::create("ray-zerocopy-test", 4096).unwrap();
    let fixed = memfd::create("ray-zerocopy-test", 4096).unwrap();
    memfd::fix_size(&fixed).unwrap();
    let right = memfd::create("ray-zerocopy-test", 4096)
        .and_then(|fd| memfd::seal_for_one_writer(fd).map_err(|error| ("fcntl", error)));
    for (bytes, reason) in [
        (vec![2], "too short"),
        (vec![2, 0, 0, 1], "too short"),
        (segment(32, 0, 100), "a segment that cannot exist"),
        (segment(255, 1, 100), "a segment that cannot exist"),
        // It has never been sent, is in use, or is shorter.
        (segment(7, 0, 100), "does not hold its message"),
        (segment(0, 0, 100), "does not hold its message"),
        (segment(0, 0, u64::MAX), "does not hold its message"),
    ] {
        ends.owner.send_raw(&bytes, &null);
        refused(reason);
    }
    for (fd, number, len, reason) in [
        (&null, 9, 100, "other processes may write"),
        (&unsealed, 9, 100, "other processes may write"),
        (&fixed, 9, 100, "other processes may write"),
        (right.as_ref().unwrap(), 0, 100, "replaces one in use"),
        // Nothing says that it holds a message.
        (right.as_ref().unwrap(), 9, 4097, "does not hold its message"),
        (right.as_ref().unwrap(), 9, 100, "does not hold its message"),
    ] {
        ends.owner.send_raw(&segment(number, 1, len), fd);
        refused(reason);
    }
    ends.owner.send_bytes_only(&segment(9, 1, 100));
    refused("without its descriptor");
    // None of that has freed the message, and the connection goes on.
    assert_intact(&message, MIB, 1);
    assert_eq!(ends.send(MIB, 2).0, Way::NewSegment);
    drop(message);
    assert_eq!(ends.send(MIB, 3).0, Way::Again(0));
}

#[test]
#[cfg_attr(miri, ignore = "sockets and memfds, which Miri does not have")]
fn segment_that_was_not_received_is_replaced() {
    let ends = Ends::new(64 * MIB);
    drop(ends.send(MIB, 1));
    // A packet of the owner's gets lost together with its descriptors.
    let lost = packet(&ends.owner, MIB, 2);
    ends.owner.send_packet(&lost, &[]).unwrap();
    ends.worker.lose_next();
    assert_eq!(ends.send(MIB, 3).0, Way::NewSegment);
    assert_eq!(ends.send(MIB, 4).0, Way::Again(0));
}
