//! The user whose sessions a mark ends, as a digest.
//!
//! A ConfigMap shows no names. A reader of the ConfigMap who guesses a user's name can still verify the guess.

use crds::names::CONSOLE_LOGOUTS;
use sha2::{Digest as _, Sha256};

use crate::caller::tenant;

/// Separates these digests from digests of the same names for other purposes.
const PURPOSE: &[u8] = b"fairlead console logout v2";
/// Length of a digest: 96 bits, so that nobody finds a second name for the digest of another user.
const LENGTH: usize = 12;

type Short = [u8; LENGTH];

/// Key of a mark: of one user of a tenant, or of the whole tenant. The key of a tenant sorts before its users.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Key {
    tenant: Short,
    /// `None`: the mark is about the whole tenant.
    user: Option<Short>,
}

impl Key {
    /// Returns the key of a user. A user who is a tenant of their own has the tenant's key.
    pub fn of(user: &str) -> Self {
        let tenant = tenant(user);
        Self {
            tenant: short(tenant),
            user: (tenant != user).then(|| short(user)),
        }
    }

    /// Returns the key of the whole tenant.
    pub fn of_tenant(self) -> Self {
        Self { user: None, ..self }
    }

    /// Whether the key is of a whole tenant.
    pub fn is_of_tenant(self) -> bool {
        self.user.is_none()
    }

    /// Returns the number of the ConfigMap for the marks of the tenant, an index of [`CONSOLE_LOGOUTS`].
    pub fn shard(self) -> usize {
        let [first, ..] = self.tenant;
        usize::from(first) % CONSOLE_LOGOUTS.len()
    }

    /// Reads what [`Key::to_text`] wrote; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let read = |text: &str| {
            let mut bytes = Short::default();
            hex::decode_to_slice(text, &mut bytes).ok()?;
            Some(bytes)
        };
        let key = match text.split_once('.') {
            Some((tenant, user)) => Self {
                tenant: read(tenant)?,
                user: Some(read(user)?),
            },
            None => Self {
                tenant: read(text)?,
                user: None,
            },
        };
        // Upper-case digits would make two texts of one key.
        (key.to_text() == text).then_some(key)
    }

    /// Returns the key under which the mark is in the ConfigMap: `TENANT` or `TENANT.USER`, in hexadecimal digits.
    pub fn to_text(self) -> String {
        let tenant = hex::encode(self.tenant);
        match self.user {
            Some(user) => format!("{tenant}.{}", hex::encode(user)),
            None => tenant,
        }
    }
}

fn short(name: &str) -> Short {
    let mut digest = Sha256::new();
    digest.update(PURPOSE);
    digest.update([0]);
    digest.update(name);
    let digest = digest.finalize();
    let mut bytes = Short::default();
    bytes.copy_from_slice(&digest[..LENGTH]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written_and_shows_no_name() {
        for user in ["oidc:ada@example.test", "system:serviceaccount:kitchen:ada"] {
            let key = Key::of(user);
            let text = key.to_text();
            assert_eq!(Key::parse(&text), Some(key), "{text}");
            assert!(!text.contains("ada") && !text.contains("kitchen"), "{text}");
            assert_eq!(Key::parse(&text.to_uppercase()), None, "{text}");
        }
        for text in [
            "",
            "floor",
            "00",
            ".",
            "zz",
            &"0".repeat(23),
            &"0".repeat(25),
        ] {
            assert_eq!(Key::parse(text), None, "{text}");
        }
    }

    #[test]
    fn users_of_one_tenant_share_a_config_map_and_a_tenants_key() {
        let [ada, bob] =
            ["ada", "bob"].map(|name| Key::of(&format!("system:serviceaccount:kitchen:{name}")));
        assert_ne!(ada, bob);
        assert_eq!(ada.of_tenant(), bob.of_tenant());
        assert_eq!(ada.shard(), bob.shard());
        assert!(ada.of_tenant() < ada && !ada.is_of_tenant());
        let person = Key::of("oidc:ada@example.test");
        assert_eq!(person.of_tenant(), person);
    }

    #[test]
    fn users_are_spread_over_all_config_maps() {
        let used: std::collections::BTreeSet<usize> = (0..200)
            .map(|number| Key::of(&format!("user-{number}")).shard())
            .collect();
        assert_eq!(used, (0..CONSOLE_LOGOUTS.len()).collect());
    }
}
