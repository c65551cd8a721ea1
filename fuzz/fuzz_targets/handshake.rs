//! A listener whose caller sends whatever the fuzzer likes: no panic, no session, no key spent.

#![no_main]

use dsgd::key::StreamId;
use dsgd::otp::handshake::{Keys, Role};
use dsgd::otp::memory::MemoryStream;
use dsgd::otp::{HELLO_BYTES, Handshake, Hello, Limits};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let names = ["caller", "listener"].map(|name| name.parse().expect("a good name"));
    let [caller, listener]: [dsgd::base::SiteId; 2] = names;
    let stream = |sender: &dsgd::base::SiteId, receiver: &dsgd::base::SiteId| StreamId {
        sender: sender.clone(),
        receiver: receiver.clone(),
    };
    let forth = MemoryStream::new(stream(&caller, &listener), 1, 1000, 100).asking();
    let back = MemoryStream::new(stream(&listener, &caller), 2, 1000, 100).asking();
    let ours = Hello {
        plain: false,
        from: listener.clone(),
        to: caller.clone(),
        nonce: [7; 16],
        sender_mark: 0,
        follower_mark: 0,
        greetings: vec![0],
    };
    let good = Hello { from: caller, to: listener, nonce: [9; 16], ..ours.clone() };
    let (theirs, rest) = match bytes.split_first_chunk::<HELLO_BYTES>() {
        Some((hello, rest)) => (Hello::decode(hello).unwrap_or(good), rest),
        None => (good, bytes),
    };
    let keys: Keys = (Box::new(back.clone()), Box::new(forth));
    let made = Handshake::new(Role::Listener, &ours, &theirs, keys, Limits::default());
    let Ok(mut handshake) = made else { return };
    let Some((header, rest)) = rest.split_first_chunk() else { return };
    let Some(tag) = rest.first_chunk() else { return };
    assert!(handshake.verify(header, tag).is_err(), "nobody without the key is believed");
    assert!(handshake.prove().is_err() && handshake.finish().is_err());
    assert!(back.taken().is_empty());
});
