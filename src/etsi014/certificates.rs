//! Certificates for trials and for sites without an authority of their own.

use std::fs::{self, File};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use zeroize::Zeroizing;

use super::Error;
use super::identity::SaeId;

/// Years for which certificates are good.
const YEARS: std::ops::Range<i32> = 2025..2046;

/// The file of the authority's certificate, in the folder.
pub const AUTHORITY: &str = "authority.pem";

/// Writes certificates of a new authority for `names` into `folder`: `NAME.pem` and `NAME.key` each,
/// and `authority.pem`. `hosts` are the host names and addresses that key managers are called by.
///
/// The authority's private key is not kept: nobody can add to these certificates afterwards.
/// Files that are there are not replaced.
pub fn write(folder: &Path, kmes: &[SaeId], saes: &[SaeId], hosts: &[String]) -> Result<(), Error> {
    let failed =
        |error: rcgen::Error| Error::Certificate { path: folder.into(), what: error.to_string() };
    fs::create_dir_all(folder).map_err(|source| Error::File { path: folder.into(), source })?;
    let mut parameters = parameters("dsgd key managers").map_err(failed)?;
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().map_err(failed)?;
    let authority = parameters.self_signed(&key).map_err(failed)?;
    create(&folder.join(AUTHORITY), authority.pem().as_bytes())?;
    let issuer = Issuer::new(parameters, key);
    let ends = kmes.iter().map(|id| (id, true)).chain(saes.iter().map(|id| (id, false)));
    for (id, is_kme) in ends {
        let mut parameters = self::parameters(id.as_str()).map_err(failed)?;
        parameters.use_authority_key_identifier_extension = true;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if is_kme {
            parameters.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
            for host in hosts {
                parameters.subject_alt_names.push(match host.parse::<IpAddr>() {
                    Ok(address) => SanType::IpAddress(address),
                    Err(_) => SanType::DnsName(host.as_str().try_into().map_err(failed)?),
                });
            }
        }
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = parameters.signed_by(&key, &issuer).map_err(failed)?;
        let name = file_name(id)?;
        create(&folder.join(format!("{name}.pem")), certificate.pem().as_bytes())?;
        let key = Zeroizing::new(key.serialize_pem());
        create(&folder.join(format!("{name}.key")), key.as_bytes())?;
    }
    Ok(())
}

fn parameters(name: &str) -> Result<CertificateParams, rcgen::Error> {
    let mut parameters = CertificateParams::new(Vec::new())?;
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.not_before = rcgen::date_time_ymd(YEARS.start, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(YEARS.end, 1, 1);
    Ok(parameters)
}

/// Identifiers may have any characters; files are only made for plain ones.
fn file_name(id: &SaeId) -> Result<&str, Error> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let name = id.as_str();
    if name.bytes().all(plain) && !name.starts_with('.') {
        return Ok(name);
    }
    Err(Error::Unfit { what: format!("'{id}' cannot be the name of a file") })
}

fn create(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let failed = |source| Error::File { path: path.into(), source };
    let mut options = File::options();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    file.map_err(failed)?.write_all(bytes).map_err(failed)
}
