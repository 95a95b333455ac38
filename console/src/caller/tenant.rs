//! Users that share one owner.

/// Start of the name of a ServiceAccount: `system:serviceaccount:NAMESPACE:NAME`.
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// Returns the tenant of a user: the namespace of a ServiceAccount, with the start of its name; any other user is a
/// tenant of their own.
///
/// Whoever may create ServiceAccounts in a namespace has as many users as they like. A share per user bounds such an
/// owner only together with a share per tenant.
pub fn tenant(user: &str) -> &str {
    let namespace_and_name = user
        .strip_prefix(SERVICE_ACCOUNT)
        .and_then(|rest| rest.split_once(':'));
    match namespace_and_name {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => user
            .get(..SERVICE_ACCOUNT.len() + namespace.len())
            .unwrap_or(user),
        Some(_) | None => user,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_accounts_of_a_namespace_are_one_tenant_and_other_users_are_their_own() {
        for (user, expected) in [
            (
                "system:serviceaccount:kitchen:ada",
                "system:serviceaccount:kitchen",
            ),
            (
                "system:serviceaccount:kitchen:bob",
                "system:serviceaccount:kitchen",
            ),
            (
                "system:serviceaccount:cellar:ada",
                "system:serviceaccount:cellar",
            ),
            ("oidc:ada@example.test", "oidc:ada@example.test"),
            ("system:admin", "system:admin"),
            ("system:serviceaccount:", "system:serviceaccount:"),
            ("system:serviceaccount::ada", "system:serviceaccount::ada"),
            (
                "system:serviceaccount:kitchen:",
                "system:serviceaccount:kitchen:",
            ),
            ("", ""),
        ] {
            assert_eq!(tenant(user), expected, "{user}");
        }
    }
}
