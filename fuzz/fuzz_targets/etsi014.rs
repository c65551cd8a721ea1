//! Messages of ETSI GS QKD 014, and of key managers among themselves, from anybody: no panic, and
//! what is taken for keys is what is written back.

#![no_main]

use dsgd::etsi014::SaeId;
use dsgd::etsi014::grant::{parse_grant, parse_granted};
use dsgd::etsi014::message::{
    parse_container, parse_key_id_query, parse_key_ids, parse_key_query, parse_key_request,
    parse_status, write_container,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = parse_key_request(bytes) {
        assert!(request.additional_slaves.iter().all(|id| !id.as_str().is_empty()));
    }
    if let Ok(ids) = parse_key_ids(bytes) {
        assert!(ids.iter().all(|id| id.to_string().parse().ok() == Some(*id)));
    }
    if let Ok(keys) = parse_container(bytes) {
        let again = parse_container(write_container(&keys).expose()).ok().expect("our own writing");
        let same = |(a, b): (&dsgd::etsi014::message::NamedKey, _)| {
            let b: &dsgd::etsi014::message::NamedKey = b;
            a.id == b.id && a.bytes.expose() == b.bytes.expose()
        };
        assert!(keys.len() == again.len() && keys.iter().zip(&again).all(same));
    }
    let _ = (parse_status(bytes), parse_granted(bytes));
    if let Some((_, entries)) = parse_grant(bytes) {
        assert!(entries.len() <= bytes.len());
    }
    let _ = SaeId::of_certificate(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = (parse_key_query(Some(text)), parse_key_id_query(Some(text)));
        if let Ok(id) = SaeId::from_segment(text) {
            assert!(SaeId::from_segment(&id.to_segment()).ok() == Some(id));
        }
    }
});
