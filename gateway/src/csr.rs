//! Certificate signing requests of devices, read and bounded.

use pairing::key::KeyFingerprint;
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer as _};

use crate::pem;

/// What is wrong with one. The text is for who writes agents.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Invalid {
    #[error("pkcs10 is {length} bytes long, {most} at most")]
    TooLong { length: usize, most: usize },
    #[error("pkcs10 is not one DER certificate signing request")]
    Encoding,
    #[error("the signature of the certificate signing request is wrong")]
    Signature,
    #[error("the certificate signing request is for another key than that of this connection")]
    AnotherKey,
}

/// Reads a PKCS#10 of so many bytes at most, which must be for the key of the connection; returns it as PEM.
///
/// Its signature lets the operator check that the device holds the key, without believing a gateway.
pub fn read(der: &[u8], key: &KeyFingerprint, most: usize) -> Result<String, Invalid> {
    if der.len() > most {
        let length = der.len();
        return Err(Invalid::TooLong { length, most });
    }
    let Ok(([], request)) = X509CertificationRequest::from_der(der) else {
        return Err(Invalid::Encoding);
    };
    if KeyFingerprint::of_spki(request.certification_request_info.subject_pki.raw) != *key {
        return Err(Invalid::AnotherKey);
    }
    request.verify_signature().map_err(|_| Invalid::Signature)?;
    Ok(pem::certificate_request(der))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PublicKeyData as _};

    use super::*;

    fn key() -> (KeyPair, KeyFingerprint) {
        let pair = KeyPair::generate().unwrap();
        let fingerprint = KeyFingerprint::of_spki(&pair.subject_public_key_info());
        (pair, fingerprint)
    }

    fn csr(pair: &KeyPair) -> Vec<u8> {
        CertificateParams::default()
            .serialize_request(pair)
            .unwrap()
            .der()
            .to_vec()
    }

    #[test]
    fn one_for_the_key_of_the_connection_is_kept_as_others_read_it() {
        let (pair, key) = key();
        let pem = read(&csr(&pair), &key, 1024).unwrap();
        assert!(
            rcgen::CertificateSigningRequestParams::from_pem(&pem).is_ok(),
            "{pem}"
        );
        assert!(pem.lines().all(|line| line.len() <= 64));
    }

    #[test]
    fn one_must_be_whole_and_for_the_key_of_the_connection() {
        let (pair, ours) = key();
        let (other, _) = key();
        let whole = csr(&pair);
        let mut forged = whole.clone();
        *forged.last_mut().unwrap() ^= 1;
        let with_more = [whole, vec![0]].concat();
        let (length, most) = (1025, 1024);
        for (pkcs10, expected) in [
            (csr(&other), Invalid::AnotherKey),
            (forged, Invalid::Signature),
            (with_more, Invalid::Encoding),
            (Vec::new(), Invalid::Encoding),
            (b"garbage".to_vec(), Invalid::Encoding),
            (vec![0x30; length], Invalid::TooLong { length, most }),
        ] {
            assert_eq!(read(&pkcs10, &ours, most), Err(expected));
        }
    }
}
