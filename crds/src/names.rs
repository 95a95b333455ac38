//! Names that more than one program must spell alike.

/// API group of every kind.
pub const GROUP: &str = "fairlead.dev";

/// Field manager of the operator, and the controller that its events name.
pub const OPERATOR: &str = "fairlead-operator";
/// Field manager of the gateways, and the controller that their events name.
pub const GATEWAY: &str = "fairlead-gateway";

/// Secret, in the operator's namespace: the authority's certificate (`tls.crt`) and key (`tls.key`).
pub const CA_SECRET: &str = "fairlead-ca";
/// Secret that gateways mount: serving certificate and chain (`tls.crt`), its key (`tls.key`), and the certificates
/// that devices' certificates are verified with (`ca.crt`).
pub const GATEWAY_TLS_SECRET: &str = "fairlead-gateway-tls";
/// Secret that gateways mount: the OPAQUE server setup, under [`PAIRING_SETUP_KEY`].
pub const PAIRING_SETUP_SECRET: &str = "fairlead-pairing-setup";
/// The one key of [`PAIRING_SETUP_SECRET`].
pub const PAIRING_SETUP_KEY: &str = "opaque-setup";
/// Secret that gateways mount: what seals the sessions of console users, under [`CONSOLE_KEY_CURRENT`] and
/// [`CONSOLE_KEY_PREVIOUS`].
pub const CONSOLE_KEYS_SECRET: &str = "fairlead-console-keys";
/// The key, [`CONSOLE_KEY_BYTES`] long, that seals new sessions.
pub const CONSOLE_KEY_CURRENT: &str = "current";
/// The one before it, which opens sessions that are older than the current one. Absent until the first rotation.
pub const CONSOLE_KEY_PREVIOUS: &str = "previous";
/// Length of each of them.
pub const CONSOLE_KEY_BYTES: usize = 32;
/// How long a console key seals new sessions, in seconds. It opens them for as long again, so a session that lives half
/// of that never loses its key.
pub const CONSOLE_KEY_SECONDS: i64 = 24 * 60 * 60;
/// ConfigMaps, in the operator's namespace: which console sessions were logged out. Part of `rbac/10-console.yaml`; a
/// gateway patches them and creates none. Each user belongs to one of them.
pub const CONSOLE_LOGOUTS: [&str; 4] = [
    "fairlead-console-logouts-0",
    "fairlead-console-logouts-1",
    "fairlead-console-logouts-2",
    "fairlead-console-logouts-3",
];
/// ConfigMap, in the operator's namespace: the certificates of the authorities, for people and programs
/// ([`TRUST_BUNDLE_CERTIFICATES`]), and the same, signed, for devices ([`TRUST_BUNDLE_SIGNED`]).
pub const TRUST_BUNDLE: &str = "fairlead-trust-bundle";
/// PEM, in [`TRUST_BUNDLE`].
pub const TRUST_BUNDLE_CERTIFICATES: &str = "ca.crt";
/// Base64 of a `pairing::bundle::SignedBundle`, in [`TRUST_BUNDLE`].
pub const TRUST_BUNDLE_SIGNED: &str = "signed-bundle";
/// Lease that operators elect their leader with.
pub const OPERATOR_LEASE: &str = "fairlead-operator";
/// ServiceAccount, in the operator's namespace, under which the operator makes dry runs that the policies must refuse.
pub const PROBE: &str = "fairlead-probe";
/// Label on the Leases of gateways, which are named after them: [`COMPONENT_GATEWAY`] is its value.
pub const COMPONENT_LABEL: &str = "fairlead.dev/component";
/// See [`COMPONENT_LABEL`].
pub const COMPONENT_GATEWAY: &str = "gateway";

/// Annotation on the Lease of a gateway: the `HOST:PORT` where devices reach it.
pub const ADVERTISE_ANNOTATION: &str = "fairlead.dev/advertise";
/// Annotation on the Lease of a gateway with a console: the `HOST:PORT` where people reach that.
pub const CONSOLE_ANNOTATION: &str = "fairlead.dev/console";

/// Annotation on [`CONSOLE_KEYS_SECRET`]: when the current key was made.
pub const CONSOLE_KEY_MADE_ANNOTATION: &str = "fairlead.dev/current-made-at";

/// How long a gateway's Lease is valid after its renewal, in seconds. Past it, the gateway counts as gone.
pub const GATEWAY_LEASE_SECONDS: i32 = 15;

/// How far the clocks of two programs may differ, in seconds. A later moment is not believed; the policies refuse one from
/// a gateway.
pub const CLOCKS_DIFFER_SECONDS: i64 = 300;

/// How long a device may take from the challenge to the proof, in seconds. An attempt older than this is a wrong one.
pub const PROOF_SECONDS: i64 = 30;

/// Most bytes of an invocation's input, as JSON without white space.
pub const MAX_INPUT_BYTES: usize = 32 * 1024;

/// Most invocations of one device that may be open at once. The newest beyond it end with `QueueFull`.
pub const MAX_OPEN_PER_DEVICE: usize = 256;
/// Most invocations of one namespace that may be open at once. The newest beyond it end with `QueueFull`.
pub const MAX_OPEN_PER_NAMESPACE: usize = 4096;

/// Most certificates of a device that are remembered beside the newest.
pub const MAX_CERTIFICATE_HISTORY: usize = 5;

/// The identity under which an operator holds the election Lease. Begins with [`OPERATOR`], so that other operators
/// recognise one of their own.
pub fn operator_identity(process: &str) -> String {
    if is_operator_identity(process) {
        process.to_owned()
    } else {
        format!("{OPERATOR}-{process}")
    }
}

/// Whether the holder of an election Lease has the identity of an operator.
pub fn is_operator_identity(holder: &str) -> bool {
    holder
        .strip_prefix(OPERATOR)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// Name of the Secret of a pairing code.
pub fn code_secret(pairing_code: &str) -> String {
    format!("{pairing_code}-code")
}

/// Name of the Secret with the certificate of a device.
pub fn device_secret(device: &str) -> String {
    format!("{device}-mtls")
}

/// A DNS label (RFC 1123) made of what a device would like to be called; `None` if nothing of it can be used.
pub fn device_name_from(requested: &str) -> Option<String> {
    let mut name = String::with_capacity(requested.len().min(63));
    for character in requested.chars() {
        let character = character.to_ascii_lowercase();
        match character {
            'a'..='z' | '0'..='9' => name.push(character),
            _ if name.ends_with('-') || name.is_empty() => {}
            _ => name.push('-'),
        }
        // Room for a suffix of a dash and eight digits of the key, for two devices of one name.
        if name.len() == 54 {
            break;
        }
    }
    let name = name.trim_end_matches('-');
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests;
