//! Which user a command runs as: numbers, or names from `/etc/passwd` and `/etc/group`.

use std::{fs::File, io::Read as _, path::Path};

/// Largest file of accounts that is read, in bytes.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// A user and a group. There are no supplementary groups.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Account {
    pub uid: u32,
    pub gid: u32,
}

/// The names that this machine's files know. Other sources of names are not asked: give a number for those.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    passwd: String,
    group: String,
}

impl Accounts {
    pub fn read() -> Self {
        Self {
            passwd: text_of(Path::new("/etc/passwd")),
            group: text_of(Path::new("/etc/group")),
        }
    }

    /// Finds a user, and the user's own group unless another is named. Fails with what to do.
    pub fn find(&self, user: &str, group: Option<&str>) -> Result<Account, String> {
        let (uid, own_group) = match self.user(user) {
            Some((uid, gid)) => (uid, Some(gid)),
            None => match number(user) {
                Some(uid) => (uid, None),
                None => {
                    return Err(format!(
                        "user: no user {user:?} is in /etc/passwd: make it, or give its number"
                    ));
                }
            },
        };
        let gid = match (group, own_group) {
            (Some(group), _) => self.group(group).ok_or_else(|| {
                format!("group: no group {group:?} is in /etc/group: make it, or give its number")
            })?,
            (None, Some(gid)) => gid,
            (None, None) => {
                return Err(format!(
                    "group: user {user} is not in /etc/passwd, so say which group it has"
                ));
            }
        };
        Ok(Account { uid, gid })
    }

    /// Those that files with these contents know.
    #[cfg(test)]
    pub fn of(passwd: &str, group: &str) -> Self {
        Self {
            passwd: passwd.to_owned(),
            group: group.to_owned(),
        }
    }

    /// The first name of a user.
    pub fn name_of(&self, uid: u32) -> Option<String> {
        self.passwd.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, found, ..] = fields[..] else {
                return None;
            };
            (number(found)? == uid && !name.is_empty()).then(|| name.to_owned())
        })
    }

    /// Whether who has this main group, and this name, is in a group.
    pub fn is_in(&self, group: &str, main: u32, name: Option<&str>) -> bool {
        let Some(gid) = self.group(group) else {
            return false;
        };
        let lists = |line: &str| {
            let fields: Vec<&str> = line.split(':').collect();
            let [_, _, found, members, ..] = fields[..] else {
                return false;
            };
            number(found) == Some(gid)
                && members
                    .split(',')
                    .any(|member| name.is_some_and(|name| member.trim() == name))
        };
        main == gid || self.group.lines().any(lists)
    }

    /// By name or number.
    fn user(&self, wanted: &str) -> Option<(u32, u32)> {
        self.passwd.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, uid, gid, ..] = fields[..] else {
                return None;
            };
            (name == wanted || uid == wanted).then_some((number(uid)?, number(gid)?))
        })
    }

    /// The number of a group, by name or number.
    pub fn group(&self, wanted: &str) -> Option<u32> {
        let named = self.group.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, gid, ..] = fields[..] else {
                return None;
            };
            (name == wanted).then(|| number(gid)).flatten()
        });
        named.or_else(|| number(wanted))
    }
}

/// The last number means "unchanged" to the system calls.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number| *number != u32::MAX)
}

/// Empty where it cannot be read: then no name is known.
fn text_of(path: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        // What was read before an error is used.
        let _ = file.take(MAX_BYTES).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_found_and_others_explained() {
        let accounts = Accounts {
            passwd: "root:x:0:0:root:/root:/bin/sh\nnonsense\nkiosk:x:1000:1001::/:/bin/sh\n"
                .to_owned(),
            group: "root:x:0:\nvideo:x:44:kiosk\n".to_owned(),
        };
        let account = |uid, gid| Ok(Account { uid, gid });
        for (user, group, expected) in [
            ("kiosk", None, account(1000, 1001)),
            ("1000", None, account(1000, 1001)),
            ("kiosk", Some("video"), account(1000, 44)),
            ("kiosk", Some("7"), account(1000, 7)),
            ("2000", Some("7"), account(2000, 7)),
        ] {
            assert_eq!(accounts.find(user, group), expected, "{user} {group:?}");
        }
        for (user, group, says) in [
            ("nobody-here", None, "/etc/passwd"),
            ("", None, "/etc/passwd"),
            ("-1", None, "/etc/passwd"),
            ("4294967295", Some("0"), "/etc/passwd"),
            ("2000", None, "which group"),
            ("kiosk", Some("nothing"), "/etc/group"),
        ] {
            let error = accounts.find(user, group).unwrap_err();
            assert!(error.contains(says), "{user}: {error}");
        }
    }
}
