//! TLS: certificates of the server, and of clients.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

/// The certificate of a server, and that of the authority of its clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
}

impl Tls {
    /// The certificate chain and the private key, as PEM files.
    pub fn new(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self { certificate: certificate.into(), key: key.into(), client_ca: None }
    }

    /// Requires that clients have a certificate of this authority, a PEM file: mutual TLS.
    #[must_use]
    pub fn client_ca(self, certificates: impl Into<PathBuf>) -> Self {
        Self { client_ca: Some(certificates.into()), ..self }
    }

    /// Reads the files.
    ///
    /// # Errors
    /// If one cannot be read or is not valid. The error names it.
    pub(super) fn config(&self) -> io::Result<Arc<ServerConfig>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().map_err(io::Error::other)?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(file) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(file)? {
                    roots.add(certificate).map_err(|error| invalid(file, &error))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| invalid(file, &error))?)
            }
        };
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| invalid(&self.key, &error))?;
        let config = builder.with_single_cert(certificates(&self.certificate)?, key);
        let mut config = config.map_err(|error| invalid(&self.certificate, &error))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn certificates(file: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let all = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let all = all.map_err(|error| invalid(file, &error))?;
    if all.is_empty() { Err(invalid(file, &"it has no certificate")) } else { Ok(all) }
}

fn invalid(file: &Path, error: &dyn Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}; expected a PEM file", file.display()))
}

#[cfg(test)]
mod tests {
    use super::Tls;

    #[test]
    fn missing_certificate_is_named() {
        let error = Tls::new("/no/such.pem", "/no/such.key").config().unwrap_err().to_string();
        assert!(error.starts_with("/no/such.key: "), "{error}");
    }
}
