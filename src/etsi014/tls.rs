//! TLS 1.2 and 1.3 with certificates at both ends.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::Error;
use super::identity::SaeId;

/// What one end shows, and whom it believes.
pub struct Credentials<'a> {
    /// Its certificate and those above it, PEM.
    pub certificate: &'a Path,
    /// The private key of the certificate, PEM.
    pub private_key: &'a Path,
    /// Certificates of those who certify the other end, PEM. No others are believed.
    pub authority: &'a Path,
}

impl Credentials<'_> {
    /// The identifier that the certificate gives.
    pub fn identity(&self) -> Result<SaeId, Error> {
        let chain = certificates(self.certificate)?;
        SaeId::of_certificate(&chain[0]).map_err(|error| refused(self.certificate, &error))
    }

    /// The server's side: whoever calls must show a certificate.
    pub fn server(&self) -> Result<Arc<ServerConfig>, Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let roots = Arc::new(self.roots()?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
            .build()
            .map_err(|error| refused(self.authority, &error))?;
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|source| Error::Tls { source })?
            .with_client_cert_verifier(verifier);
        let mut config = builder
            .with_single_cert(certificates(self.certificate)?, private_key(self.private_key)?)
            .map_err(|source| Error::Tls { source })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// The client's side.
    pub fn client(&self) -> Result<Arc<ClientConfig>, Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|source| Error::Tls { source })?
            .with_root_certificates(self.roots()?);
        let mut config = builder
            .with_client_auth_cert(certificates(self.certificate)?, private_key(self.private_key)?)
            .map_err(|source| Error::Tls { source })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    fn roots(&self) -> Result<RootCertStore, Error> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(self.authority)? {
            roots.add(certificate).map_err(|error| refused(self.authority, &error))?;
        }
        Ok(roots)
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let found = found.map_err(|error| refused(path, &error))?;
    if found.is_empty() {
        return Err(Error::Certificate {
            path: path.into(),
            what: "no certificate is in it".into(),
        });
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| refused(path, &error))
}

fn refused(path: &Path, error: &dyn std::error::Error) -> Error {
    Error::Certificate { path: path.into(), what: error.to_string() }
}
