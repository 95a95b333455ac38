//! What a certificate signing request proves: that who made it holds the key. Nothing else of it is used.

use pairing::key::KeyFingerprint;
use rcgen::{
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PublicKeyData,
    SubjectPublicKeyInfo,
};
use x509_parser::{
    certification_request::X509CertificationRequest, pem::parse_x509_pem, prelude::FromDer as _,
};

/// A key whose holder asked for a certificate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DeviceKey {
    key: SubjectPublicKeyInfo,
    fingerprint: KeyFingerprint,
}

impl DeviceKey {
    /// Of a key that the operator made itself.
    pub fn of(key: &rcgen::KeyPair) -> Option<Self> {
        Self::of_spki(&key.subject_public_key_info())
    }

    fn of_spki(der: &[u8]) -> Option<Self> {
        let key = SubjectPublicKeyInfo::from_der(der).ok()?;
        let accepted = [
            &PKCS_ECDSA_P256_SHA256,
            &PKCS_ECDSA_P384_SHA384,
            &PKCS_ED25519,
        ];
        // What will be signed is written anew by the library: its digest counts, not that of what was received.
        let fingerprint = KeyFingerprint::of_spki(&key.subject_public_key_info());
        accepted
            .contains(&key.algorithm())
            .then_some(Self { key, fingerprint })
    }

    pub fn fingerprint(&self) -> KeyFingerprint {
        self.fingerprint
    }
}

impl PublicKeyData for DeviceKey {
    fn der_bytes(&self) -> &[u8] {
        self.key.der_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.key.algorithm()
    }
}

/// Why nothing is signed for a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    #[error("csr is no PEM-encoded PKCS#10 certificate signing request")]
    Syntax,
    #[error("the signature of csr is not that of its key")]
    Signature,
    #[error(
        "the key of csr is of a kind that is not accepted: use ECDSA P-256, ECDSA P-384 or Ed25519"
    )]
    KeyKind,
    #[error("csr is for another key than spec.publicKeySha256 names")]
    AnotherKey,
}

/// Reads a request and checks that it is for the key with that digest.
pub fn read(pem: &str, public_key_sha256: &str) -> Result<DeviceKey, Error> {
    let (rest, pem) = parse_x509_pem(pem.as_bytes()).map_err(|_| Error::Syntax)?;
    if !rest.iter().all(u8::is_ascii_whitespace) || !pem.label.ends_with("CERTIFICATE REQUEST") {
        return Err(Error::Syntax);
    }
    let Ok(([], request)) = X509CertificationRequest::from_der(&pem.contents) else {
        return Err(Error::Syntax);
    };
    let key = DeviceKey::of_spki(request.certification_request_info.subject_pki.raw)
        .ok_or(Error::KeyKind)?;
    request.verify_signature().map_err(|_| Error::Signature)?;
    if key.fingerprint.to_string() != public_key_sha256 {
        return Err(Error::AnotherKey);
    }
    Ok(key)
}

#[cfg(test)]
pub mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

    use super::*;

    /// A request, and what it proves.
    pub fn request(key: &KeyPair) -> (String, DeviceKey) {
        let pem = CertificateParams::new(["wish.example".to_owned()])
            .unwrap()
            .serialize_request(key)
            .unwrap()
            .pem()
            .unwrap();
        (pem, DeviceKey::of(key).unwrap())
    }

    #[test]
    fn a_request_proves_its_key() {
        for algorithm in [
            &PKCS_ECDSA_P256_SHA256,
            &PKCS_ECDSA_P384_SHA384,
            &PKCS_ED25519,
        ] {
            let (pem, key) = request(&KeyPair::generate_for(algorithm).unwrap());
            assert_eq!(read(&pem, &key.fingerprint().to_string()), Ok(key));
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let (pem, key) = request(&KeyPair::generate().unwrap());
        let digest = key.fingerprint().to_string();
        let twice = format!("{pem}{pem}");
        let certificate = pem.replace("CERTIFICATE REQUEST", "CERTIFICATE");
        for wrong in [
            "",
            "garbage",
            "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
            &twice,
            &certificate,
        ] {
            assert_eq!(read(wrong, &digest), Err(Error::Syntax), "{wrong}");
        }
    }

    #[test]
    fn a_request_of_another_key_is_refused() {
        let (pem, _) = request(&KeyPair::generate().unwrap());
        let (_, other) = request(&KeyPair::generate().unwrap());
        assert_eq!(
            read(&pem, &other.fingerprint().to_string()),
            Err(Error::AnotherKey)
        );
        assert_eq!(read(&pem, ""), Err(Error::AnotherKey));
    }

    #[test]
    fn a_request_whose_signature_was_tampered_with_is_refused() {
        let (pem, key) = request(&KeyPair::generate().unwrap());
        let (_, parsed) = parse_x509_pem(pem.as_bytes()).unwrap();
        let mut der = parsed.contents;
        // The name that was wished for: inside of what is signed.
        let at = der.windows(4).position(|window| window == b"wish").unwrap();
        der[at] = b'f';
        let tampered = x509_pem(&der);
        assert_eq!(
            read(&tampered, &key.fingerprint().to_string()),
            Err(Error::Signature)
        );
    }

    fn x509_pem(der: &[u8]) -> String {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        let lines: Vec<&str> = (0..text.len())
            .step_by(64)
            .map(|at| &text[at..text.len().min(at + 64)])
            .collect();
        format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
            lines.join("\n")
        )
    }
}
