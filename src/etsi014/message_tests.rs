//! What is read, what is refused with which text, and what is written.

use proptest::prelude::*;

use super::*;

fn message(result: Result<impl Sized, Refusal>) -> String {
    match result {
        Ok(_) => "accepted".into(),
        Err(refusal) => refusal.to_string(),
    }
}

#[test]
fn key_requests_are_read_as_the_standard_has_them() {
    let parsed = |text: &str| parse_key_request(text.as_bytes()).unwrap();
    assert_eq!(parsed(""), KeyRequest::default());
    assert_eq!(parsed("{}"), KeyRequest::default());
    let text = r#"{"number": 3, "size": 1024,
        "additional_slave_SAE_IDs": ["ABCDEFG", "HIJKLMN"],
        "extension_mandatory": [],
        "extension_optional": [{"abc_option1": {"deep": [1]}}, {"abc_option2": 12}],
        "additional_target_sae_ids": [], "vendor": {"x": [[[]]]}}"#;
    let slaves = ["ABCDEFG", "HIJKLMN"].map(|id| id.parse().unwrap()).into();
    let expected = KeyRequest { number: Some(3), size: Some(1024), additional_slaves: slaves };
    assert_eq!(parsed(text), expected);
    let query = parse_key_query(Some("number=3&size=1024&x=y")).unwrap();
    assert_eq!((query.number, query.size), (Some(3), Some(1024)));
    assert_eq!(parse_key_query(None), Ok(KeyRequest::default()));
}

#[test]
fn every_wrong_key_request_has_its_text() {
    let cases: &[(&str, &str)] = &[
        ("{", "the body is not JSON"),
        ("{}x", "the body is not JSON"),
        ("nonsense", "the body is not JSON"),
        ("[1, 256]", "the body is not a key request"),
        ("null", "the body is not a key request"),
        (r#"{"number": 1, "number": 1}"#, "the body is not a key request"),
        (r#"{"number": -1}"#, "number shall be an integer"),
        (r#"{"number": 1.5}"#, "number shall be an integer"),
        (r#"{"number": 1e99}"#, "number shall be an integer"),
        (r#"{"number": 99999999999999999999}"#, "number shall be an integer"),
        (r#"{"number": "1"}"#, "number shall be an integer"),
        (r#"{"number": null}"#, "number shall be an integer"),
        (r#"{"number": [1]}"#, "the body is not a key request"),
        (r#"{"size": true}"#, "size shall be an integer"),
        (r#"{"size": {}}"#, "the body is not a key request"),
        (r#"{"additional_slave_SAE_IDs": "x"}"#, "the body is not a key request"),
        (r#"{"additional_slave_SAE_IDs": [1]}"#, "the body is not a key request"),
        (r#"{"additional_slave_SAE_IDs": [""]}"#, "additional_slave_SAE_IDs has what is no SAE ID"),
        (r#"{"extension_mandatory": [{"x": 1}]}"#, text::MANDATORY),
        (r#"{"extension_mandatory": {"x": 1}}"#, "the body is not a key request"),
        (r#"{"extension_mandatory": [[]]}"#, "the body is not a key request"),
        (r#"{"extension_optional": ["x"]}"#, "the body is not a key request"),
        (r#"{"extension_optional": null}"#, "the body is not a key request"),
    ];
    for (body, expected) in cases {
        assert_eq!(message(parse_key_request(body.as_bytes())), *expected, "{body}");
    }
    assert_eq!(message(parse_key_request(b"{\"x\":\"\xff\"}")), "the body is not UTF-8");
    let deep = format!(r#"{{"x": {}}}"#, "[".repeat(30_000));
    assert_eq!(message(parse_key_request(deep.as_bytes())), "the body is not JSON");
    for (query, expected) in [
        ("number=", "number shall be an integer"),
        ("number=+1", "number shall be an integer"),
        ("size=-8", "size shall be an integer"),
        ("size=18446744073709551616", "size shall be an integer"),
        ("number=1&number=1", "a parameter is given twice"),
    ] {
        assert_eq!(message(parse_key_query(Some(query))), expected, "{query}");
    }
}

#[test]
fn every_wrong_list_of_names_has_its_text() {
    const ID: &str = "550e8400-e29b-41d4-a716-446655440000";
    let read = |text: &str| parse_key_ids(text.as_bytes());
    let good = format!(r#"{{"key_IDs":[{{"key_ID":"{ID}","key_ID_extension":{{"a":1}}}}]}}"#);
    assert_eq!(read(&good).unwrap(), [ID.parse().unwrap()]);
    assert_eq!(parse_key_id_query(Some(&format!("key_ID={ID}"))).unwrap(), [ID.parse().unwrap()]);
    let none = "the body is not a list of key IDs";
    let entry = format!(r#"{{"key_ID":"{ID}"}}"#);
    let cases = [
        (String::new(), "the body is not JSON"),
        ("{}".into(), none),
        (r#"{"key_IDs": []}"#.into(), "key_IDs shall name at least one key"),
        (r#"{"key_IDs": [{}]}"#.into(), none),
        (format!(r#"{{"key_IDs": ["{ID}"]}}"#), none),
        (format!(r#"{{"key_IDs": [["{ID}"]]}}"#), none),
        (r#"{"key_IDs": [{"key_ID": "x"}]}"#.into(), "a key_ID shall be a UUID"),
        (format!(r#"{{"key_IDs": [{entry}, {entry}]}}"#), "key_IDs names a key twice"),
        (format!(r#"{{"key_IDs": [{entry}], "key_IDs": [{entry}]}}"#), none),
    ];
    for (body, expected) in cases {
        assert_eq!(message(read(&body)), expected, "{body}");
    }
    assert_eq!(message(parse_key_id_query(None)), "key_IDs shall name at least one key");
    assert_eq!(message(parse_key_id_query(Some("key_ID=%zz"))), "a key_ID shall be a UUID");
}

fn named(number: u8, bytes: usize) -> NamedKey {
    let id = KeyId::from_bytes([number; 16]);
    NamedKey { id, bytes: Secret::new(vec![number; bytes].into()) }
}

#[test]
fn containers_are_written_exactly() {
    let body = write_container(&[named(1, 4), named(0xab, 3)]);
    let expected = r#"{"keys":[{"key_ID":"01010101-0101-0101-0101-010101010101","key":"AQEBAQ=="},{"key_ID":"abababab-abab-abab-abab-abababababab","key":"q6ur"}]}"#;
    assert_eq!(std::str::from_utf8(body.expose()).unwrap(), expected);
}

#[test]
fn defective_containers_are_named() {
    let entry = |id: u8, key: &str| {
        format!(r#"{{"key_ID":"{}","key":"{key}"}}"#, KeyId::from_bytes([id; 16]))
    };
    let container = |entries: &[String]| format!(r#"{{"Keys":[{}]}}"#, entries.join(","));
    let read = |text: &str| parse_container(text.as_bytes()).map(|keys| keys.len());
    assert_eq!(read(&container(&[entry(1, "AQEBAQ=="), entry(2, "AgIC")])), Ok(2));
    assert_eq!(read(&container(&[entry(1, r"\/\/\/\/")])), Ok(1), "escaped, as some do");
    assert_eq!(read(&container(&[entry(1, "AQEB"), entry(1, "AgIC")])), Err(Defect::RepeatedId));
    assert_eq!(read(&container(&[entry(1, "AQEB"), entry(2, "AQEB")])), Err(Defect::RepeatedKey));
    for bad in ["", "A", "AQEBAQ", "AQ-_", "A===", "====", "AQE\\u0000", "AQEB "] {
        assert_eq!(read(&container(&[entry(1, bad)])), Err(Defect::Base64), "{bad}");
    }
    assert_eq!(read(r#"{"keys":[{"key_ID":"x","key":"AQEB"}]}"#), Err(Defect::KeyId));
    for bad in ["", "<html>", "[]", "{}", r#"{"keys":[],"keys":[]}"#, r#"{"keys":[["x","AQEB"]]}"#]
    {
        assert_eq!(read(bad), Err(Defect::Json), "{bad}");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(lengths in proptest::collection::vec(1usize..80, 1..20)) {
        let keys: Vec<_> =
            lengths.iter().enumerate().map(|(number, bytes)| named(number as u8, *bytes)).collect();
        let body = write_container(&keys);
        match parse_container(body.expose()) {
            Ok(read) => prop_assert!(
                keys.iter().zip(&read).all(|(a, b)| a.id == b.id && a.bytes.expose() == b.bytes.expose())
                    && keys.len() == read.len()
            ),
            Err(defect) => prop_assert!(false, "{defect}"),
        }
    }

    #[test]
    fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in ".{0,100}") {
        let _ = (parse_key_request(&bytes), parse_key_ids(&bytes), parse_status(&bytes));
        let _ = parse_container(&bytes).map(|keys| keys.len());
        let _ = (parse_key_query(Some(&text)), parse_key_id_query(Some(&text)));
    }
}
