//! The control plane's own certificate authority, and what it signs. Lives as long as the control plane does.

use std::path::Path;

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

use crate::private;

/// Longer than anybody keeps a control plane for tests, shorter than what leaks are remembered for.
const VALID: Duration = Duration::days(30);

/// A key and its certificate, PEM. The key is for files of mode 0600 alone.
pub struct Credentials {
    pub certificate: String,
    pub key: String,
}

/// The authority and the folder with what the API server reads.
pub struct Pki {
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    /// Makes everything afresh and writes into `folder`: `ca.crt`, `apiserver.{crt,key}`, `service-account.{key,pub}`.
    pub fn create(folder: &Path) -> anyhow::Result<Self> {
        let mut parameters = parameters("fairlead-controlplane-ca");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().context("make the CA's key")?;
        let ca = CertifiedIssuer::self_signed(parameters, key).context("sign the CA")?;
        let pki = Self { ca };

        private::folder(folder)?;
        let write =
            |name: &str, content: &str| private::write(&folder.join(name), content.as_bytes());
        write("ca.crt", &pki.ca_certificate())?;
        let mut server = parameters_for_server()?;
        server.insert_extended_key_usage(ExtendedKeyUsagePurpose::ServerAuth);
        let server = pki.sign(&server)?;
        write("apiserver.crt", &server.certificate)?;
        write("apiserver.key", &server.key)?;
        let service_accounts = KeyPair::generate().context("make the key of service accounts")?;
        write("service-account.key", &service_accounts.serialize_pem())?;
        write("service-account.pub", &service_accounts.public_key_pem())?;
        Ok(pki)
    }

    /// The CA's certificate, PEM.
    pub fn ca_certificate(&self) -> String {
        self.ca.as_ref().pem()
    }

    /// A client certificate, which is how the API server knows a user and their group.
    pub fn client(&self, user: &str, group: Option<&str>) -> anyhow::Result<Credentials> {
        let mut parameters = parameters(user);
        if let Some(group) = group {
            parameters
                .distinguished_name
                .push(DnType::OrganizationName, group);
        }
        parameters.insert_extended_key_usage(ExtendedKeyUsagePurpose::ClientAuth);
        self.sign(&parameters)
    }

    fn sign(&self, parameters: &CertificateParams) -> anyhow::Result<Credentials> {
        let key = KeyPair::generate().context("make a key")?;
        let certificate = parameters
            .signed_by(&key, &self.ca)
            .context("sign a certificate")?;
        Ok(Credentials {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

fn parameters(name: &str) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    let now = OffsetDateTime::now_utc();
    parameters.not_before = now - Duration::minutes(5);
    parameters.not_after = now + VALID;
    parameters.use_authority_key_identifier_extension = true;
    parameters
}

fn parameters_for_server() -> anyhow::Result<CertificateParams> {
    let mut server = parameters("kube-apiserver");
    server.subject_alt_names = CertificateParams::new(["localhost", "127.0.0.1"].map(String::from))
        .context("name the API server")?
        .subject_alt_names;
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    Ok(server)
}
