//! OPAQUE (RFC 9807): both ends prove that they know a pairing code, and neither sends it.
//!
//! Both halves and the making of a password file live here, so that what they must agree on is written once. KE2 proves
//! the gateway to the device, KE3 the device to the gateway; both hold for one TLS connection only, through its
//! [`Exporter`].

use argon2::{Algorithm, Argon2, Params, Version};
use opaque_ke::{
    CipherSuite, ClientLogin, ClientLoginFinishParameters, ClientRegistration,
    ClientRegistrationFinishParameters, CredentialFinalization, CredentialRequest,
    CredentialResponse, Identifiers, Ristretto255, ServerLogin, ServerLoginParameters,
    ServerRegistration, ServerSetup, TripleDh, errors::ProtocolError,
};
use rand_core::OsRng;
use sha2::Sha512;
use zeroize::Zeroizing;

use crate::{code::PairingCode, exporter::Exporter};

/// Memory that stretching takes, in KiB. Light, for codes live minutes: it runs at the device and where a code is made,
/// never at the gateway. Part of the protocol: both ends must use the same.
const STRETCH_KIB: u32 = 8 * 1024;
const STRETCH_PASSES: u32 = 1;

struct Suite;

impl CipherSuite for Suite {
    type OprfCs = Ristretto255;
    type KeyExchange = TripleDh<Ristretto255, Sha512>;
    type Ksf = Argon2<'static>;
}

/// Why an exchange failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// Says no more on purpose: wrong, unknown, locked and used up look the same from outside.
    #[error("the pairing code was not proved")]
    NotProved,
    /// The bytes are no OPAQUE message.
    #[error("not an OPAQUE message")]
    Malformed,
    /// The setup or a password file is damaged.
    #[error("not an OPAQUE server setup or password file")]
    Stored,
}

impl From<ProtocolError> for Error {
    fn from(error: ProtocolError) -> Self {
        match error {
            ProtocolError::InvalidLoginError => Self::NotProved,
            // A length or a group element that is none: no honest peer sends that.
            ProtocolError::LibraryError(_)
            | ProtocolError::SerializationError
            | ProtocolError::SizeError { .. }
            | ProtocolError::ReflectedValueError
            | ProtocolError::Custom(_) => Self::Malformed,
        }
    }
}

fn stretching() -> Result<Argon2<'static>, Error> {
    let params = Params::new(STRETCH_KIB, STRETCH_PASSES, 1, None).map_err(|_| Error::Stored)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// The servers' long-term secret: one for the cluster, made by the operator, held by every gateway.
pub struct Setup(ServerSetup<Suite>);

impl Setup {
    pub fn generate() -> Self {
        Self(ServerSetup::new(&mut OsRng))
    }

    /// For the Secret that gateways mount.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.0.serialize().to_vec())
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        ServerSetup::deserialize(bytes)
            .map(Self)
            .map_err(|_| Error::Stored)
    }

    /// What gateways need to check a code, and cannot read it from. Slow: this stretches. Who makes a code plays both
    /// parts of the registration.
    pub fn password_file(&self, code: &PairingCode) -> Result<Vec<u8>, Error> {
        let secret = code.secret().as_bytes();
        let client = ClientRegistration::<Suite>::start(&mut OsRng, secret)?;
        let server = ServerRegistration::start(&self.0, client.message, code.id().as_bytes())?;
        let stretching = stretching()?;
        let parameters =
            ClientRegistrationFinishParameters::new(Identifiers::default(), Some(&stretching));
        let upload = client
            .state
            .finish(&mut OsRng, secret, server.message, parameters)?;
        Ok(ServerRegistration::finish(upload.message)
            .serialize()
            .to_vec())
    }

    /// The gateway's first half: answers KE1 with KE2. Count the attempt before KE2 leaves: whoever holds it can check
    /// one guess against it and walk away.
    ///
    /// Without a password file OPAQUE makes up an answer that no secret can satisfy, so that a stranger does not learn
    /// which codes exist.
    pub fn challenge(
        &self,
        password_file: Option<&[u8]>,
        code_id: &str,
        ke1: &[u8],
        exporter: &Exporter,
    ) -> Result<(Attempt, Vec<u8>), Error> {
        let request = CredentialRequest::deserialize(ke1)?;
        let password_file = password_file
            .map(|file| ServerRegistration::deserialize(file).map_err(|_| Error::Stored))
            .transpose()?;
        let start = ServerLogin::start(
            &mut OsRng,
            &self.0,
            password_file,
            request,
            code_id.as_bytes(),
            login_parameters(exporter),
        )?;
        Ok((
            Attempt {
                login: start.state,
                exporter: *exporter,
            },
            start.message.serialize().to_vec(),
        ))
    }
}

/// A challenge that went out and awaits its proof.
pub struct Attempt {
    login: ServerLogin<Suite>,
    exporter: Exporter,
}

impl Attempt {
    /// The gateway's second half: checks KE3. `Ok` means that the device knows the code and is at the other end of the
    /// connection that the challenge was made for.
    pub fn verify(self, ke3: &[u8]) -> Result<(), Error> {
        let proof = CredentialFinalization::deserialize(ke3)?;
        self.login.finish(proof, login_parameters(&self.exporter))?;
        Ok(())
    }
}

/// With this key exchange, only the context given to the start counts; the finish gets the same for the reader's sake.
fn login_parameters(exporter: &Exporter) -> ServerLoginParameters<'_, 'static> {
    ServerLoginParameters {
        context: Some(exporter.as_bytes()),
        identifiers: Identifiers::default(),
    }
}

/// The device's half: a code that it claims to know, on its way to being proved.
pub struct Claim {
    code: PairingCode,
    login: ClientLogin<Suite>,
}

impl Claim {
    /// Returns the claim and KE1.
    pub fn start(code: PairingCode) -> Result<(Self, Vec<u8>), Error> {
        let start = ClientLogin::<Suite>::start(&mut OsRng, code.secret().as_bytes())?;
        Ok((
            Self {
                code,
                login: start.state,
            },
            start.message.serialize().to_vec(),
        ))
    }

    /// Returns KE3 if KE2 came from a gateway that knows the code and sits at the other end of the very connection that
    /// `exporter` was taken from. Slow: this stretches.
    ///
    /// Whoever plays the gateway gets one guess per call, and nobody counts it: after a failure a person must decide to
    /// try again, never a loop.
    pub fn prove(self, ke2: &[u8], exporter: &Exporter) -> Result<Vec<u8>, Error> {
        let stretching = stretching()?;
        let parameters = ClientLoginFinishParameters::new(
            Some(exporter.as_bytes()),
            Identifiers::default(),
            Some(&stretching),
        );
        let response = CredentialResponse::deserialize(ke2)?;
        let finish = self.login.finish(
            &mut OsRng,
            self.code.secret().as_bytes(),
            response,
            parameters,
        )?;
        Ok(finish.message.serialize().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(secret: &str) -> PairingCode {
        PairingCode::parse(&format!("7KQ2-{secret}")).unwrap()
    }

    /// Whether the device is convinced, and whether the gateway is.
    fn exchange(
        file: Option<&[u8]>,
        setup: &Setup,
        typed: PairingCode,
        same_connection: bool,
    ) -> (bool, bool) {
        let here = Exporter::from_bytes([1; 32]);
        let there = if same_connection {
            here
        } else {
            Exporter::from_bytes([2; 32])
        };
        let id = typed.id().to_owned();
        let (claim, ke1) = Claim::start(typed).unwrap();
        let (attempt, ke2) = setup.challenge(file, &id, &ke1, &here).unwrap();
        match claim.prove(&ke2, &there) {
            Ok(ke3) => (true, attempt.verify(&ke3).is_ok()),
            Err(error) => {
                assert_eq!(error, Error::NotProved);
                (false, false)
            }
        }
    }

    #[test]
    fn both_ends_must_know_the_code_and_be_on_the_same_connection() {
        let setup = Setup::generate();
        let file = setup.password_file(&code("000000")).unwrap();
        // What an operator wrote and a gateway read back.
        let setup = Setup::from_bytes(&setup.to_bytes()).unwrap();
        assert_eq!(
            exchange(Some(&file), &setup, code("000000"), true),
            (true, true)
        );
        assert_eq!(
            exchange(Some(&file), &setup, code("000001"), true),
            (false, false)
        );
        assert_eq!(
            exchange(Some(&file), &setup, code("000000"), false),
            (false, false)
        );
        assert_eq!(exchange(None, &setup, code("000000"), true), (false, false));
    }

    #[test]
    fn a_proof_for_one_attempt_does_not_pass_for_another() {
        let setup = Setup::generate();
        let file = setup.password_file(&code("000000")).unwrap();
        let exporter = Exporter::from_bytes([1; 32]);
        let (claim, ke1) = Claim::start(code("000000")).unwrap();
        let (_, ke2) = setup
            .challenge(Some(&file), "7KQ2", &ke1, &exporter)
            .unwrap();
        let (other, _) = setup
            .challenge(Some(&file), "7KQ2", &ke1, &exporter)
            .unwrap();
        let ke3 = claim.prove(&ke2, &exporter).unwrap();
        assert_eq!(other.verify(&ke3), Err(Error::NotProved));
    }

    #[test]
    fn garbage_is_malformed_and_a_damaged_file_is_not_the_strangers_fault() {
        let setup = Setup::generate();
        let exporter = Exporter::from_bytes([1; 32]);
        assert_eq!(
            setup.challenge(None, "7KQ2", b"garbage", &exporter).err(),
            Some(Error::Malformed)
        );
        let (_, ke1) = Claim::start(code("000000")).unwrap();
        assert_eq!(
            setup
                .challenge(Some(b"garbage"), "7KQ2", &ke1, &exporter)
                .err(),
            Some(Error::Stored)
        );
        assert_eq!(Setup::from_bytes(b"garbage").err(), Some(Error::Stored));
    }
}
