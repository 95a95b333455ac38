//! Who may answer for this device. Pure.

use crate::{capability::command::account::Accounts, config::mediation::Mediation};

/// Who is at the other end of the socket, as the kernel says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Peer {
    pub uid: u32,
    /// Its main group. The kernel names no other; those are looked up.
    pub gid: u32,
}

/// The name that an answer carries, or why this user may not answer. `own` is the user who runs the agent.
pub fn judge(
    peer: Peer,
    own: u32,
    mediation: &Mediation,
    accounts: &Accounts,
) -> Result<String, String> {
    let name = accounts.name_of(peer.uid);
    let number = peer.uid.to_string();
    let is_named = |wanted: &String| Some(wanted) == name.as_ref() || *wanted == number;
    let is_member = |group: &String| accounts.is_in(group, peer.gid, name.as_deref());
    let may = peer.uid == 0
        || peer.uid == own
        || mediation.users.iter().any(is_named)
        || mediation.groups.iter().any(is_member);
    let shown = name.unwrap_or(format!("user {number}"));
    if may {
        Ok(shown)
    } else {
        Err(format!(
            "{shown} may not answer for this device: the device's administrator can add them to a group of \
             mediation.groups in the agent's configuration, or to mediation.users"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_the_agents_user_and_who_is_named_may_answer_and_nobody_else() {
        let accounts = Accounts::of(
            "root:x:0:0::/:/bin/sh\njane:x:1000:1000::/:\njoe:x:1001:1001::/:\nann:x:1002:70::/:\n",
            "root:x:0:\ndesk:x:70:jane,jo\nother:x:71:joe\n",
        );
        let mediation = |users: &[&str], groups: &[&str]| Mediation {
            users: users.iter().map(|&user| user.to_owned()).collect(),
            groups: groups.iter().map(|&group| group.to_owned()).collect(),
            ..Mediation::default()
        };
        for (uid, gid, mediation, expected) in [
            (0, 0, mediation(&[], &[]), Some("root")),
            (7, 7, mediation(&[], &[]), Some("user 7")),
            (1000, 1000, mediation(&[], &[]), None),
            (1000, 1000, mediation(&[], &["desk"]), Some("jane")),
            (1000, 1000, mediation(&[], &["70"]), Some("jane")),
            // A name that begins like another one's.
            (1001, 1001, mediation(&[], &["desk"]), None),
            (1001, 1001, mediation(&["joe"], &["desk"]), Some("joe")),
            (1001, 1001, mediation(&["1001"], &["desk"]), Some("joe")),
            (1002, 70, mediation(&[], &["desk"]), Some("ann")),
            (2000, 70, mediation(&[], &["desk"]), Some("user 2000")),
            (2000, 2000, mediation(&["jane"], &["desk", "no-such"]), None),
        ] {
            let judged = judge(Peer { uid, gid }, 7, &mediation, &accounts);
            assert_eq!(
                judged.ok().as_deref(),
                expected,
                "{uid} {gid} {mediation:?}"
            );
        }
        let refusal = judge(
            Peer { uid: 1001, gid: 1 },
            7,
            &mediation(&[], &[]),
            &accounts,
        );
        assert!(refusal.unwrap_err().contains("joe may not answer"));
    }
}
