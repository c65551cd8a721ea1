//! The crate etsi014-client against three key managers. Arguments: certificates, 3 ports.

use std::path::PathBuf;

use etsi014_client::ETSI014Client;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [certificates, port_a, port_b, _] = &arguments[..] else { panic!("four arguments") };
    let file = |name: &str| PathBuf::from(certificates).join(name);
    let client = |port: &str, sae: &str| {
        let (pem, key) = (file(&format!("{sae}.pem")), file(&format!("{sae}.key")));
        let port = port.parse().expect("a port");
        ETSI014Client::new("localhost", port, &pem, &key, &file("authority.pem")).expect("a client")
    };
    let (master, slave) = (client(port_a, "sae-a1"), client(port_b, "sae-b1"));

    let status = master.get_status("sae-b1").await.expect("a status");
    assert_eq!((&*status.source_kme_id, &*status.target_kme_id), ("kme-a", "kme-b"));
    assert_eq!((status.key_size, status.max_key_per_request), (256, 128));

    // Its request has the field 'additional_target_sae_ids', which the standard does not know.
    let keys = master.get_keys(512, "sae-b1", &[], 3).await.expect("keys");
    let names: Vec<&str> = keys.iter().map(|(name, _)| name.as_str()).collect();
    let fetched = slave.get_keys_by_ids("sae-a1", &names).await.expect("the same keys");
    assert_eq!((keys.len(), fetched.len()), (3, 3));
    for ((name, key), (other_name, other)) in keys.iter().zip(&fetched) {
        assert_eq!((name, key.len()), (other_name, 64));
        assert!(*key.borrow() == *other.borrow());
    }
    let again = slave.get_keys_by_ids("sae-a1", &names).await.expect_err("they are gone");
    assert!(again.to_string().contains("400"), "{again}");
    println!("etsi014_client: as expected");
}
