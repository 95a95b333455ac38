//! Certificates that nobody paired for: by the cluster's own authority, whose key only the operator has, or by a
//! made-up one.

use anyhow::Context as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    PublicKeyData, SanType,
};
use rustls::pki_types::CertificateDer;

use crate::install::SYSTEM_NAMESPACE;
use crate::stack::TRUST_DOMAIN;
use crate::stranger::Stranger;

/// Signs certificates for devices.
pub struct Authority(Issuer<'static, KeyPair>);

impl Authority {
    /// The operator's, read out of its Secret by a cluster administrator.
    ///
    /// # Errors
    /// When the Secret is not there or not what the operator writes.
    pub async fn of_cluster(client: &Client) -> anyhow::Result<Self> {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
        let mut data = secrets
            .get(crds::names::CA_SECRET)
            .await?
            .data
            .context("the authority's Secret is empty")?;
        let mut text = |key: &str| -> anyhow::Result<String> {
            let value = data
                .remove(key)
                .with_context(|| format!("the authority's Secret has no {key}"))?;
            Ok(String::from_utf8(value.0)?)
        };
        let (certificate, key) = (text("tls.crt")?, text("tls.key")?);
        Ok(Self(Issuer::from_ca_cert_pem(
            &certificate,
            KeyPair::from_pem(&key)?,
        )?))
    }

    /// One that no gateway knows.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn made_up() -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        Ok(Self(Issuer::new(params, KeyPair::generate()?)))
    }

    /// A certificate for the stranger's key that names a device, leaf first.
    ///
    /// # Errors
    /// When the names are no part of a URI.
    pub fn certify(
        &self,
        stranger: &Stranger,
        namespace: &str,
        device: &str,
    ) -> anyhow::Result<Vec<CertificateDer<'static>>> {
        let id = format!("spiffe://{TRUST_DOMAIN}/ns/{namespace}/device/{device}");
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(id.as_str().try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        Ok(vec![
            params.signed_by(stranger.key(), &self.0)?.der().clone(),
        ])
    }

    /// A certificate for any key that names a device, valid from the one moment to the other.
    ///
    /// # Errors
    /// When the names are no part of a URI, or the moments of no certificate.
    pub fn certify_for(
        &self,
        key: &impl PublicKeyData,
        namespace: &str,
        device: &str,
        (from, until): (Timestamp, Timestamp),
    ) -> anyhow::Result<CertificateDer<'static>> {
        let id = format!("spiffe://{TRUST_DOMAIN}/ns/{namespace}/device/{device}");
        let moment = |at: Timestamp| time::OffsetDateTime::from_unix_timestamp(at.as_second());
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(id.as_str().try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.not_before = moment(from)?;
        params.not_after = moment(until)?;
        Ok(params.signed_by(key, &self.0)?.der().clone())
    }
}
