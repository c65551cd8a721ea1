//! Drives the greetings and openings over a socket.

use crate::base::SiteId;
use crate::key::{self, KeyStore};
use crate::otp::handshake::{self, Role};
use crate::otp::hello::{NONCE_BYTES, refusal_in, refuse};
use crate::otp::{
    self, HEADER_BYTES, HELLO_BYTES, Handshake, Hello, Refusal, Session, Statistics, TAG_BYTES,
};

use super::connection::{Channel, Connection, Plain, with_keys};
use super::wire::Wire;
use super::{Cipher, Error, Settings};

/// The calling end: greets first.
pub(super) fn as_dialer(
    mut wire: Wire,
    peer: &SiteId,
    keys: &KeyStore,
    settings: &Settings,
) -> Result<Connection, Error> {
    let streams = streams(&wire, peer, keys, settings)?;
    let ours = greeting(&wire, (keys.site(), peer), settings.cipher, streams.as_ref())?;
    wire.write(&[&ours.encode()])?;
    let theirs = read_greeting(&mut wire)?;
    let theirs = theirs.map_err(|source| in_session(&wire, source))?;
    proofs(wire, Role::Dialer, &ours, &theirs, streams, settings)
}

/// The called end: learns who calls, then greets or says why not.
pub(super) fn as_listener(
    mut wire: Wire,
    keys: &KeyStore,
    settings: &Settings,
) -> Result<Connection, Error> {
    let theirs = match read_greeting(&mut wire)? {
        Ok(theirs) => theirs,
        Err(source) => {
            if matches!(source, otp::Error::Version { .. }) {
                tell(&mut wire, Refusal::Version);
            }
            return Err(in_session(&wire, source));
        }
    };
    // A caller may ask for what this site permits besides its own cipher; the proofs are over it.
    let settings = &settings.under(theirs.cipher);
    let streams = match streams(&wire, &theirs.from, keys, settings) {
        Err(Error::Keys { source: key::Error::UnknownPeer { peer, .. }, .. }) => {
            tell(&mut wire, Refusal::UnknownPeer);
            let reason = Refusal::UnknownPeer;
            return Err(in_session(&wire, otp::Error::Refused { peer, reason }));
        }
        Err(error) => {
            if matches!(&error, Error::Keys { source: key::Error::Quarantined { .. }, .. }) {
                tell(&mut wire, Refusal::SetBack);
            }
            return Err(error);
        }
        Ok(streams) => streams,
    };
    let ours = greeting(&wire, (keys.site(), &theirs.from), settings.cipher, streams.as_ref())?;
    if let Err(source) = handshake::check(&ours, &theirs) {
        if let otp::Error::Refused { reason, .. } = &source {
            tell(&mut wire, *reason);
        }
        return Err(in_session(&wire, source));
    }
    wire.write(&[&ours.encode()])?;
    proofs(wire, Role::Listener, &ours, &theirs, streams, settings)
}

fn proofs(
    mut wire: Wire,
    role: Role,
    ours: &Hello,
    theirs: &Hello,
    streams: Option<handshake::Keys>,
    settings: &Settings,
) -> Result<Connection, Error> {
    let Some(streams) = streams else {
        handshake::check(ours, theirs).map_err(|source| in_session(&wire, source))?;
        let plain = Plain { peer: theirs.from.clone(), statistics: Statistics::default() };
        return Ok(Connection::new(wire, Channel::Plain(plain), settings));
    };
    let limits = otp::Limits { cipher: settings.cipher, ..settings.limits };
    let handshake = Handshake::new(role, ours, theirs, streams, limits)
        .map_err(|source| in_session(&wire, source))?;
    let session = exchange(&mut wire, role, handshake, settings)?;
    let mut connection = Connection::new(wire, Channel::Otp(Box::new(session)), settings);
    connection.send_control()?;
    Ok(connection)
}

fn exchange(
    wire: &mut Wire,
    role: Role,
    mut handshake: Handshake,
    settings: &Settings,
) -> Result<Session, Error> {
    // Nobody is proven yet, so nobody is waited for any longer than for an answer.
    let settings =
        &Settings { key_wait: settings.key_wait.min(settings.deadline / 2), ..settings.clone() };
    match role {
        Role::Dialer => {
            prove(wire, &mut handshake, settings)?;
            verify(wire, &mut handshake, settings)?;
        }
        Role::Listener => {
            verify(wire, &mut handshake, settings)
                .and_then(|()| prove(wire, &mut handshake, settings))
                .inspect_err(|error| tell_why(wire, error))?;
        }
    }
    handshake.finish().map_err(|source| in_session(wire, source))
}

/// Tells the caller what it may know: that it has to do with records of keys.
fn tell_why(wire: &mut Wire, error: &Error) {
    let Error::Session { source: otp::Error::Key(source), .. } = error else { return };
    match source {
        key::Error::Quarantined { .. } => tell(wire, Refusal::SetBack),
        key::Error::NoGreeting { .. } => tell(wire, Refusal::Greeting),
        _ => {}
    }
}

fn prove(wire: &mut Wire, handshake: &mut Handshake, settings: &Settings) -> Result<(), Error> {
    let proof = with_keys(settings, wire.address(), || handshake.prove())?;
    wire.write(&[&proof.header, &proof.tag])
}

fn verify(wire: &mut Wire, handshake: &mut Handshake, settings: &Settings) -> Result<(), Error> {
    let (mut header, mut tag) = ([0; HEADER_BYTES], [0; TAG_BYTES]);
    wire.read_exact(&mut header)?;
    if let Some(reason) = refusal_in(&header) {
        return Err(in_session(wire, otp::Error::RefusedByPeer { reason }));
    }
    wire.read_exact(&mut tag)?;
    with_keys(settings, wire.address(), || handshake.verify(&header, &tag))
}

fn streams(
    wire: &Wire,
    peer: &SiteId,
    keys: &KeyStore,
    settings: &Settings,
) -> Result<Option<handshake::Keys>, Error> {
    if settings.cipher == Cipher::Plain {
        return Ok(None);
    }
    let failed = |source| Error::Keys { address: wire.address().into(), source };
    let spend = keys.sender(peer).map_err(failed)?;
    let follow = keys.follower(peer).map_err(failed)?;
    Ok(Some((Box::new(spend), Box::new(follow))))
}

fn greeting(
    wire: &Wire,
    (site, peer): (&SiteId, &SiteId),
    cipher: Cipher,
    streams: Option<&handshake::Keys>,
) -> Result<Hello, Error> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce)
        .map_err(|error| Error::Random { address: wire.address().into(), source: error.into() })?;
    Ok(Hello {
        cipher,
        from: site.clone(),
        to: peer.clone(),
        nonce,
        sender_mark: streams.map_or(0, |(spend, _)| spend.mark()),
        follower_mark: streams.map_or(0, |(_, follow)| follow.mark()),
        greetings: streams.map_or_else(Vec::new, |(_, follow)| follow.greetings()),
    })
}

/// The peer's greeting; the inner error is about what it says.
fn read_greeting(wire: &mut Wire) -> Result<Result<Hello, otp::Error>, Error> {
    let mut bytes = [0; HELLO_BYTES];
    wire.read_exact(&mut bytes)?;
    Ok(Hello::decode(&bytes))
}

fn tell(wire: &mut Wire, reason: Refusal) {
    // Whoever does not listen need not know.
    let _ = wire.write(&[&refuse(reason)]);
    wire.finish();
}

fn in_session(wire: &Wire, source: otp::Error) -> Error {
    Error::Session { address: wire.address().into(), source }
}
