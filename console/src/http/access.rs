//! What the caller may do.

use console_api::access::{Access, PermissionAccess, RouteAccess};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::call::{Call, ok};
use crate::{
    problem::{Answer, Fault},
    registry::{Need, Permission, RouteId},
};

/// Permissions that are asked for at once.
const AT_ONCE: usize = 4;

pub async fn show(call: Call) -> Answer {
    let permissions: Vec<(Permission, bool)> = stream::iter(Permission::ALL)
        .map(|permission| {
            let call = &call;
            async move { Ok::<_, Fault>((permission, call.has(permission, &call.target).await?)) }
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    let allowed = |wanted: Permission| {
        permissions
            .iter()
            .any(|(permission, allowed)| *permission == wanted && *allowed)
    };
    ok(&Access {
        user: call.caller()?.who.user.clone(),
        namespace: call.target.namespace.clone(),
        permissions: permissions
            .iter()
            .map(|(permission, allowed)| PermissionAccess {
                permission: permission.as_str().to_owned(),
                allowed: *allowed,
                rules: permission
                    .reviews(&call.target)
                    .iter()
                    .map(crate::registry::Review::rule)
                    .collect(),
            })
            .collect(),
        routes: RouteId::ALL
            .into_iter()
            .map(|id| {
                let route = id.route();
                RouteAccess {
                    method: route.method.as_str().to_owned(),
                    path: route.path.to_owned(),
                    permission: route
                        .permission()
                        .map(|permission| permission.as_str().to_owned()),
                    allowed: match route.need {
                        Need::Nobody | Need::Token | Need::Identity => true,
                        Need::Permission(permission) => allowed(permission),
                    },
                }
            })
            .collect(),
    })
}
