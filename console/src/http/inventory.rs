//! Devices in the order in which they need attention, one of them whole, and what runs Fairlead: from the index, without
//! a request to the API server.

use std::{str::FromStr, time::Duration};

use console_api::inventory::{Action, DEFAULT_PAGE, TrustDecision};

use super::call::{Call, ok};
use crate::{
    clock::{self, now},
    inventory::{Filter, Known, Page, PageError, See},
    problem::{Answer, Fault},
    record,
    registry::{Permission, Target},
};

/// How long this gateway may take to hear of what another one has shown on the pages before.
const CATCH_UP_TIME: Duration = Duration::from_secs(2);

pub async fn page(call: Call) -> Answer {
    let query = &call.query;
    let filter = Filter {
        trust: query.value("trust"),
        presence: query.value("presence"),
        client_kind: query.value("kind"),
        labels: parsed(&call, "labels")?,
        text: parsed(&call, "text")?,
    };
    let page = Page {
        limit: query.number("limit").unwrap_or(DEFAULT_PAGE),
        cursor: parsed(&call, "cursor")?,
    };
    synced(&call)?;
    let see = See {
        pairings: call.has(Permission::PairingRead, &call.target).await?,
        ..See::default()
    };
    call.console
        .index
        .heard_of(&page, clock::instant() + CATCH_UP_TIME)
        .await;
    let scope = call.target.namespace.as_deref();
    let inventory = call
        .console
        .index
        .inventory(scope, &filter, &page, see, now());
    ok(&inventory.map_err(not_a_page)?)
}

fn not_a_page(error: PageError) -> Fault {
    match error {
        PageError::BadCursor(error) => Fault::field("query.cursor", error.to_string()),
        PageError::Behind => {
            Fault::unavailable("this gateway has not seen as much yet as the one before: try again")
        }
    }
}

/// A parameter that is read into a type of its own.
fn parsed<T: FromStr<Err: std::fmt::Display>>(call: &Call, name: &str) -> Answer<Option<T>> {
    let Some(text) = call.query.text(name) else {
        return Ok(None);
    };
    match text.parse() {
        Ok(value) => Ok(Some(value)),
        Err(error) => Err(Fault::field(format!("query.{name}"), error.to_string())),
    }
}

/// What is asked for right after the start would be missing and not be told apart from what is not there.
pub fn synced(call: &Call) -> Answer<()> {
    if call.console.index.is_synced() {
        Ok(())
    } else {
        Err(Fault::unavailable(
            "this gateway has just started and does not know all devices yet: try again",
        ))
    }
}

pub async fn detail(call: Call) -> Answer {
    synced(&call)?;
    let id = call.object()?;
    let Some(known) = call.console.index.device(&id) else {
        return Err(Fault::not_found());
    };
    // Lists of what is around it take rights to the namespace.
    let around = Target {
        namespace: Some(id.namespace().to_owned()),
        ..Target::default()
    };
    let see = See {
        pairings: call.has(Permission::PairingRead, &around).await?,
        invocations: call.has(Permission::InvocationRead, &around).await?,
        events: call.has(Permission::EventsRead, &around).await?,
    };
    let rights = Rights {
        operate: call.has(Permission::TrustOperate, &call.target).await?,
        delete: call.has(Permission::DeviceDelete, &call.target).await?,
        invoke: may_invoke_something(&call, &known).await?,
    };
    let actions = actions(record::trust_decision(known.trust_decision), rights);
    let detail = call.console.index.detail(&id, see, actions, now());
    ok(&detail.ok_or_else(Fault::not_found)?)
}

/// Capabilities that are asked for, of a device that has many.
const MOST_ASKED: usize = 16;

/// Whether the caller may run all of them, or one of those that it declares.
async fn may_invoke_something(call: &Call, device: &Known) -> Answer<bool> {
    if call.has(Permission::CapabilityInvoke, &call.target).await? {
        return Ok(true);
    }
    for capability in device.capabilities.iter().take(MOST_ASKED) {
        let target = Target {
            capability: Some(capability.name.clone()),
            ..call.target.clone()
        };
        if call.has(Permission::CapabilityInvoke, &target).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What the caller may do with a device, as far as rights go.
#[derive(Clone, Copy, Debug)]
struct Rights {
    operate: bool,
    delete: bool,
    invoke: bool,
}

/// What can be done with a device: rights and state together.
fn actions(trust: TrustDecision, rights: Rights) -> Vec<Action> {
    let revoked = (trust == TrustDecision::Revoked).then_some("it is revoked for good");
    let of_suspend = match trust {
        TrustDecision::Suspended => Some("it is suspended already"),
        TrustDecision::Active | TrustDecision::Revoked | TrustDecision::Other => revoked,
    };
    let of_resume = match trust {
        TrustDecision::Active => Some("it is not suspended"),
        TrustDecision::Suspended | TrustDecision::Revoked | TrustDecision::Other => revoked,
    };
    let of_invoke = match trust {
        TrustDecision::Suspended => Some("it is suspended"),
        TrustDecision::Active | TrustDecision::Revoked | TrustDecision::Other => revoked,
    };
    let action = |action: &str, permission: Permission, right: bool, state: Option<&str>| Action {
        action: action.to_owned(),
        allowed: right && state.is_none(),
        reason: match (right, state) {
            (false, _) => Some(format!("this takes the permission {}", permission.as_str())),
            (true, state) => state.map(str::to_owned),
        },
    };
    let operate = |name, state| action(name, Permission::TrustOperate, rights.operate, state);
    vec![
        operate("suspend", of_suspend),
        operate("resume", of_resume),
        operate("revoke", revoked),
        operate("rename", None),
        operate("grant", revoked),
        action("delete", Permission::DeviceDelete, rights.delete, None),
        action(
            "invoke",
            Permission::CapabilityInvoke,
            rights.invoke,
            of_invoke,
        ),
    ]
}

pub fn instances(call: &Call) -> Answer {
    synced(call)?;
    ok(&call.console.index.instances(now()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Rights = Rights {
        operate: true,
        delete: true,
        invoke: true,
    };

    fn allowed(trust: TrustDecision, rights: Rights) -> Vec<String> {
        let actions = actions(trust, rights);
        for action in &actions {
            assert_ne!(action.allowed, action.reason.is_some(), "{}", action.action);
        }
        actions
            .into_iter()
            .filter(|action| action.allowed)
            .map(|action| action.action)
            .collect()
    }

    #[test]
    fn what_can_be_done_depends_on_rights_and_on_state() {
        assert_eq!(
            allowed(TrustDecision::Active, ALL),
            ["suspend", "revoke", "rename", "grant", "delete", "invoke"]
        );
        assert_eq!(
            allowed(TrustDecision::Suspended, ALL),
            ["resume", "revoke", "rename", "grant", "delete"]
        );
        assert_eq!(allowed(TrustDecision::Revoked, ALL), ["rename", "delete"]);
        let none = Rights {
            operate: false,
            delete: false,
            invoke: false,
        };
        assert_eq!(allowed(TrustDecision::Active, none), [""; 0]);
        assert_eq!(
            allowed(
                TrustDecision::Active,
                Rights {
                    invoke: true,
                    ..none
                }
            ),
            ["invoke"]
        );
    }
}
