//! A tunnel: whole IP packets of a TUN device, carried in packets with hidden headers. What an observer
//! of the way sees are datagrams of one size: neither who talks to whom inside, nor by which protocol,
//! nor how much. The paper's "header encryption: yes".
//!
//! Inner packets stand one after another in a packet's payload, as many as are waiting and fit; the
//! rest is padding. The device's MTU is the payload's size, so nothing is ever cut: the system itself
//! tells senders of what does not fit, and TCP connections agree on segments that do.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde::Serialize;

use super::Error;
use super::flow::duplex::{Incoming, Outgoing};
use super::flow::{Queued, Tally};
use super::tun::Tun;
use crate::otp::packet::Kind;

/// How long to wait before looking whether the tunnel is to end.
const TURN: Duration = Duration::from_millis(100);
/// How often a packet goes out when there is nothing to carry and no pace was asked for.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// What a tunnel carried from this site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Carried {
    /// As both ends counted, in packets of the flow.
    pub out: Tally,
    /// The same for the other direction, as this end counted.
    pub back: Tally,
    /// Inner packets that were sent.
    pub inner_packets: u64,
    /// Inner packets for which there was no key in time.
    pub dropped: u64,
}

/// Carries packets between `device` and the peer until `stop` is set or the peer ends it.
///
/// With `cover`, a packet goes out at least that often, whether there is something to carry or not, so
/// that the pace tells less; its keys are spent.
///
/// Errors: what ended the flow or the device.
pub fn run(
    device: &Tun,
    (mut outgoing, mut incoming): (Outgoing, Incoming),
    cover: Option<Duration>,
    stop: &AtomicBool,
) -> Result<Carried, Error> {
    let over = AtomicBool::new(false);
    let mut carried = Carried::default();
    let (out, back) = thread::scope(|scope| {
        let back = scope.spawn(|| {
            let result = deliver(device, &mut incoming, (stop, &over));
            over.store(true, Ordering::SeqCst);
            result.and_then(|()| incoming.finish())
        });
        let sent = collect(device, &mut outgoing, cover, (stop, &over), &mut carried);
        over.store(true, Ordering::SeqCst);
        let out = outgoing.finish();
        let back = back.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (sent.and(out), back)
    });
    carried.out = out?;
    carried.back = back?;
    Ok(carried)
}

fn is_over((stop, over): (&AtomicBool, &AtomicBool)) -> bool {
    stop.load(Ordering::SeqCst) || over.load(Ordering::SeqCst)
}

/// From the device to the peer.
fn collect(
    device: &Tun,
    outgoing: &mut Outgoing,
    cover: Option<Duration>,
    flags: (&AtomicBool, &AtomicBool),
    carried: &mut Carried,
) -> Result<(), Error> {
    let mut unit = Unit::new(device.mtu());
    let mut inner = zeroize::Zeroizing::new(vec![0; device.mtu()]);
    let pace = cover.unwrap_or(KEEP_ALIVE);
    let mut silent = pace;
    while !is_over(flags) {
        let turn = TURN.min(pace);
        let any = device.wait(turn).map_err(|source| of_device(device, source))?;
        silent = if any { Duration::ZERO } else { silent + turn };
        while let Some(bytes) =
            device.read(&mut inner).map_err(|source| of_device(device, source))?
        {
            if !unit.has_room(bytes) {
                unit.send(outgoing, carried)?;
            }
            unit.push(&inner[..bytes]);
        }
        unit.send(outgoing, carried)?;
        if silent >= pace {
            silent = Duration::ZERO;
            outgoing.sender.put((Kind::Cover, 0), 0, Duration::ZERO, |_| {})?;
        }
        outgoing.sender.flush()?;
    }
    Ok(())
}

/// Inner packets that will share a packet.
struct Unit {
    bytes: zeroize::Zeroizing<Vec<u8>>,
    room: usize,
    packets: u64,
}

impl Unit {
    fn new(room: usize) -> Self {
        Self { bytes: zeroize::Zeroizing::new(Vec::with_capacity(room)), room, packets: 0 }
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.bytes.len() + bytes <= self.room
    }

    fn push(&mut self, packet: &[u8]) {
        // What tells its own length wrong could not be told apart at the other end.
        if inner_bytes(packet) == Some(packet.len()) && self.has_room(packet.len()) {
            self.bytes.extend_from_slice(packet);
            self.packets += 1;
        }
    }

    fn send(&mut self, outgoing: &mut Outgoing, carried: &mut Carried) -> Result<(), Error> {
        let bytes = &self.bytes;
        if bytes.is_empty() {
            return Ok(());
        }
        let copy = |place: &mut [u8]| place.copy_from_slice(bytes);
        match outgoing.sender.put((Kind::Data, 0), bytes.len(), TURN, copy)? {
            Queued::Yes => carried.inner_packets += self.packets,
            Queued::NoKey => carried.dropped += self.packets,
        }
        self.bytes.clear();
        self.packets = 0;
        Ok(())
    }
}

/// From the peer to the device.
fn deliver(
    device: &Tun,
    incoming: &mut Incoming,
    flags: (&AtomicBool, &AtomicBool),
) -> Result<(), Error> {
    while !is_over(flags) && incoming.finished().is_none() {
        let mut result = Ok(());
        incoming.receiver.receive(TURN, |_, payload| {
            for packet in inner_packets(payload) {
                if let Err(source) = device.write(packet) {
                    result = Err(of_device(device, source));
                }
            }
        })?;
        result?;
    }
    Ok(())
}

fn of_device(device: &Tun, source: io::Error) -> Error {
    Error::Broken { address: format!("device {}", device.name()), source }
}

/// Cuts a payload into the packets that stand in it; stops at the first that is none.
fn inner_packets(mut payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let bytes = inner_bytes(payload).filter(|bytes| *bytes <= payload.len())?;
        let (packet, rest) = payload.split_at(bytes);
        payload = rest;
        Some(packet)
    })
}

/// The length that an IP packet says it has.
fn inner_bytes(packet: &[u8]) -> Option<usize> {
    let length =
        |at: usize| Some(usize::from(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?])));
    let (least, bytes) = match packet.first()? >> 4 {
        4 => (20, length(2)?),
        6 => (40, 40 + length(4)?),
        _ => return None,
    };
    (bytes >= least).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ipv4(bytes: u16) -> Vec<u8> {
        let mut packet = vec![0x45; bytes.into()];
        packet[2..4].copy_from_slice(&bytes.to_be_bytes());
        packet
    }

    fn ipv6(payload: u16) -> Vec<u8> {
        let mut packet = vec![0x60; 40 + usize::from(payload)];
        packet[4..6].copy_from_slice(&payload.to_be_bytes());
        packet
    }

    #[test]
    fn packets_are_found_again() {
        let packets = [ipv4(20), ipv6(0), ipv4(900), ipv6(77)];
        let payload = packets.concat();
        assert!(inner_packets(&payload).eq(packets.iter().map(Vec::as_slice)));
        let cut = &payload[..payload.len() - 1];
        assert_eq!(inner_packets(cut).count(), 3);
    }

    #[test]
    fn what_is_no_packet_is_not_carried() {
        let mut unit = Unit::new(100);
        unit.push(&ipv4(50)[..49]);
        unit.push(&[0; 30]);
        unit.push(&[]);
        assert!(unit.bytes.is_empty());
        unit.push(&ipv4(60));
        assert!(!unit.has_room(41) && unit.has_room(40));
        unit.push(&ipv4(60));
        assert_eq!((unit.bytes.len(), unit.packets), (60, 1));
    }

    proptest! {
        #[test]
        fn any_payload_is_cut_into_parts_of_itself(payload in proptest::collection::vec(any::<u8>(), 0..300)) {
            let total: usize = inner_packets(&payload).map(<[u8]>::len).sum();
            prop_assert!(total <= payload.len());
            prop_assert!(inner_packets(&payload).all(|packet| packet.len() >= 20));
        }
    }
}
