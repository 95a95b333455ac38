//! What the facts come to. Pure: no clock, no I/O.

use std::net::SocketAddr;

use jiff::Timestamp;

use super::{Check, Name, Report, Verdict};
use crate::{
    capability::command::groups::Controllers,
    journal::{Bounds, Counts},
    state::identity::{Life, LifeState},
};

/// Below this, the journal may be unable to record anything; below that, it cannot be written anew at its full size.
const LEAST_BYTES: u64 = 4 * 1024 * 1024;
/// How far a clock may be off: nobody notices; a new certificate, which is backdated by five minutes, does not hold yet.
const FINE_SECONDS: i64 = 30;
const MOST_SECONDS: i64 = 240;
/// A renewal that is so late meets something that goes on.
const LATE_SECONDS: i64 = 3600;

/// Everything that was seen. What could not be looked at says why.
#[derive(Clone, Debug)]
pub struct Facts {
    pub now: Timestamp,
    /// What is wrong with `agent.toml`.
    pub configuration: Option<String>,
    /// What is wrong with the files that declare capabilities; how many capabilities there are.
    pub capabilities: (Vec<String>, usize),
    pub folder: Folder,
    pub disk: Result<Disk, String>,
    pub standing: Result<Standing, String>,
    pub journal: Result<(Counts, u64), String>,
    /// The process that uses the state folder.
    pub process: Option<u32>,
    pub socket: Socket,
    /// What that process can bound its commands by; `None` where it has no control groups for them.
    pub groups: Option<Controllers>,
    pub screen: Screen,
    pub gateways: Vec<Gateway>,
}

#[derive(Clone, Debug)]
pub enum Folder {
    Missing(String),
    /// What is wrong with it, and the user it belongs to, where that is another one.
    Refused {
        what: String,
        owner: Option<u32>,
    },
    Fine(String),
}

#[derive(Clone, Copy, Debug)]
pub struct Disk {
    pub free_bytes: u64,
    /// `None` where the file system does not count.
    pub free_files: Option<u64>,
    pub read_only: bool,
}

#[derive(Clone, Debug)]
pub enum Standing {
    Unpaired,
    Pairing,
    Paired {
        device: String,
        life: Life,
        /// In seconds since 1970.
        renews_at: i64,
        /// Why the last renewal was not accepted.
        refused: Option<String>,
    },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Socket {
    Missing,
    /// Somebody listens.
    Open,
    /// Nobody listens.
    Closed,
    /// This user may not.
    Forbidden,
}

/// Where things are opened that invocations want opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Screen {
    /// Nothing is, by the configuration.
    Unused,
    /// The agent, or whoever would start it, is in a desktop session.
    Session,
    NoSession,
    /// This user may not see in what environment the agent runs.
    Unknown,
}

/// What became of the attempts to reach one. Each needs the one before.
#[derive(Clone, Debug)]
pub struct Gateway {
    pub address: String,
    /// What is on the way, without its credentials. Its addresses are then those that are looked up and knocked at.
    pub proxy: Option<String>,
    pub dns: Result<Vec<SocketAddr>, String>,
    /// Each address, in the order in which the agent tries them.
    pub visits: Vec<Visit>,
}

/// What became of an attempt to reach a gateway by one of its addresses.
#[derive(Clone, Debug)]
pub struct Visit {
    pub address: SocketAddr,
    pub port: Result<(), String>,
    pub tls: Option<Tls>,
}

impl Visit {
    /// Whether the agent can use this address.
    fn is_useful(&self) -> bool {
        self.port.is_ok() && matches!(self.tls, Some(Tls::NotPaired | Tls::Fine { .. }))
    }
}

#[derive(Clone, Debug)]
pub enum Tls {
    /// There is no certificate to show yet.
    NotPaired,
    /// Not a gateway of the authority that this device believes; or not by this device's clock.
    Untrusted(String),
    Broken(String),
    /// It refused this device's certificate.
    Refused(String),
    /// Both believe each other. What its clock says, in seconds since 1970, beside this device's at that moment.
    Fine {
        life: Option<Life>,
        clocks: Option<(i64, i64)>,
    },
}

/// What all of it comes to.
pub fn judge(facts: &Facts) -> Report {
    let mut checks = vec![
        configuration(facts),
        capabilities(facts),
        folder(facts),
        disk(facts),
        pairing(facts),
        journal(facts),
        process(facts),
        socket(facts),
        groups(facts),
        screen(facts),
        certificate(facts),
    ];
    for gateway in &facts.gateways {
        checks.push(dns(gateway));
        if gateway.visits.is_empty() {
            checks.push(skipped(Name::Port, "its address is not known").about(gateway));
            checks.push(skipped(Name::Tls, "it cannot be reached").about(gateway));
        }
        for visit in &gateway.visits {
            checks.extend([port(visit), tls(visit)].map(|check| check.of(gateway, visit)));
        }
    }
    if facts.gateways.is_empty() {
        let why = "no gateway is known before this device is paired";
        checks.extend([Name::Dns, Name::Port, Name::Tls].map(|name| skipped(name, why)));
    }
    checks.push(clock(facts));
    Report::new(checks)
}

fn check(name: Name, result: Verdict, found: impl Into<String>) -> Check {
    Check {
        name,
        subject: None,
        result,
        found: found.into(),
        remedy: None,
    }
}

fn ok(name: Name, found: impl Into<String>) -> Check {
    check(name, Verdict::Ok, found)
}

fn skipped(name: Name, found: impl Into<String>) -> Check {
    check(name, Verdict::Skipped, found)
}

impl Check {
    fn with(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    fn about(mut self, gateway: &Gateway) -> Self {
        let mut subject = gateway.address.clone();
        if let Some(proxy) = &gateway.proxy {
            subject.push_str(" through ");
            subject.push_str(proxy);
        }
        self.subject = Some(subject);
        self
    }

    /// Names the address where there are several. One that is of no use is less of a trouble where another is: the agent
    /// takes that.
    fn of(self, gateway: &Gateway, visit: &Visit) -> Self {
        let mut check = self.about(gateway);
        if gateway.visits.len() > 1
            && let Some(subject) = &mut check.subject
        {
            subject.push_str(" at ");
            subject.push_str(&visit.address.to_string());
        }
        if check.result == Verdict::Failed && gateway.visits.iter().any(Visit::is_useful) {
            check.result = Verdict::Warning;
            check.remedy = Some(
                "the agent uses another address of this name; mend this one, or take it out of the name's records"
                    .to_owned(),
            );
        }
        check
    }
}

fn configuration(facts: &Facts) -> Check {
    match &facts.configuration {
        None => ok(Name::Configuration, "it can be read"),
        // It says what to do itself.
        Some(problem) => check(Name::Configuration, Verdict::Failed, problem),
    }
}

fn capabilities(facts: &Facts) -> Check {
    let (problems, count) = &facts.capabilities;
    match problems.first() {
        None => ok(Name::Capabilities, format!("there are {count}")),
        Some(first) => check(
            Name::Capabilities,
            Verdict::Warning,
            format!(
                "there are {count}, and {} problems; the first: {first}",
                problems.len()
            ),
        )
        .with("`fairlead-agent capabilities` shows all of them"),
    }
}

fn folder(facts: &Facts) -> Check {
    match &facts.folder {
        Folder::Fine(path) => ok(Name::StateFolder, format!("{path} is its owner's alone")),
        Folder::Missing(path) => check(
            Name::StateFolder,
            Verdict::Warning,
            format!("{path} is not there"),
        )
        .with("pair this device, or say where it is with --state-dir"),
        Folder::Refused {
            what,
            owner: Some(owner),
        } => check(Name::StateFolder, Verdict::Failed, what).with(format!(
            "ask as the user to whom it belongs: sudo -u '#{owner}' fairlead-agent doctor"
        )),
        // It says what to do itself.
        Folder::Refused { what, owner: None } => check(Name::StateFolder, Verdict::Failed, what),
    }
}

fn disk(facts: &Facts) -> Check {
    let disk = match &facts.disk {
        Ok(disk) => disk,
        Err(why) => return skipped(Name::Disk, why),
    };
    let found = format!("{} MiB free for the state", disk.free_bytes / (1024 * 1024));
    let room = "make room on the file system of the state folder";
    if disk.read_only {
        check(
            Name::Disk,
            Verdict::Failed,
            "the file system of the state folder is read-only",
        )
        .with("mount it for writing, and look into the kernel's log why it was not")
    } else if disk.free_files == Some(0) {
        check(
            Name::Disk,
            Verdict::Failed,
            "no file can be made any more: the file system has no inode left",
        )
        .with(room)
    } else if disk.free_bytes < LEAST_BYTES {
        check(Name::Disk, Verdict::Failed, found)
            .with(format!("{room}: until then new work is refused"))
    } else if disk.free_bytes < 2 * Bounds::default().bytes {
        check(Name::Disk, Verdict::Warning, found).with(format!("{room}: soon new work is refused"))
    } else {
        ok(Name::Disk, found)
    }
}

fn pairing(facts: &Facts) -> Check {
    match &facts.standing {
        Err(what) => check(Name::Pairing, Verdict::Failed, what),
        Ok(Standing::Unpaired) => check(Name::Pairing, Verdict::Warning, "this device is not paired")
            .with("run `fairlead-agent pair` with a code from your administrator"),
        Ok(Standing::Pairing) => {
            check(Name::Pairing, Verdict::Warning, "an approver has not decided yet")
                .with("`fairlead-agent status` names the request; start the agent, or `pair` again, to wait for it")
        }
        Ok(Standing::Paired { device, .. }) => ok(Name::Pairing, format!("paired as {device}")),
    }
}

fn journal(facts: &Facts) -> Check {
    let (counts, bytes) = match &facts.journal {
        Ok(found) => found,
        Err(what) => return check(Name::Journal, Verdict::Failed, what),
    };
    let most = Bounds::default();
    let open = counts.waiting + counts.running + counts.unacked;
    let found = format!(
        "{bytes} bytes, {open} invocations open, {} remembered",
        counts.acked
    );
    if *bytes > most.bytes || open >= most.open {
        check(Name::Journal, Verdict::Warning, found)
            .with("it is full until gateways take the results: see that one can be reached")
    } else {
        ok(Name::Journal, found)
    }
}

fn process(facts: &Facts) -> Check {
    match (facts.process, &facts.standing) {
        (Some(process), _) => ok(
            Name::Process,
            format!("process {process} uses the state folder"),
        ),
        (None, Ok(Standing::Paired { .. } | Standing::Pairing)) => {
            check(Name::Process, Verdict::Warning, "no agent runs")
                .with("start it: systemctl start fairlead-agent, or `fairlead-agent run`")
        }
        (None, Ok(Standing::Unpaired) | Err(_)) => skipped(
            Name::Process,
            "no agent runs, and there is nothing to serve",
        ),
    }
}

fn socket(facts: &Facts) -> Check {
    match (facts.socket, facts.process) {
        (Socket::Open, _) => ok(Name::Socket, "people at this device can be asked"),
        (Socket::Missing | Socket::Closed, None) => {
            skipped(Name::Socket, "no agent runs, so nobody listens")
        }
        (Socket::Missing | Socket::Closed, Some(_)) => check(
            Name::Socket,
            Verdict::Warning,
            "an agent runs, and does not listen at its socket",
        )
        .with("its log says why; until then nobody at this device can be asked"),
        (Socket::Forbidden, _) => check(Name::Socket, Verdict::Warning, "this user may not use it")
            .with("ask as the agent's own user"),
    }
}

fn groups(facts: &Facts) -> Check {
    if facts.process.is_none() {
        return skipped(Name::ControlGroups, "no agent runs");
    }
    let lacks = |what: &str| {
        check(Name::ControlGroups, Verdict::Warning, what)
            .with("have it started by systemd, with the unit of `fairlead-agent install`")
    };
    match facts.groups {
        Some(Controllers {
            memory: true,
            pids: true,
        }) => ok(
            Name::ControlGroups,
            "each run of a command has its own, with its own bounds",
        ),
        Some(_) => lacks(
            "each run has its own, and not all bounds can be kept: memory_bytes of a whole run, max_processes",
        ),
        None => lacks(
            "commands have none: bounds are those of each process, and what leaves its group outlives it",
        ),
    }
}

fn screen(facts: &Facts) -> Check {
    match facts.screen {
        Screen::Unused => skipped(Name::Screen, "nothing is opened on a screen of this device"),
        Screen::Unknown => skipped(Name::Screen, "this user may not see whether the agent has one"),
        Screen::Session => ok(Name::Screen, "the agent is in a desktop session"),
        Screen::NoSession => check(
            Name::Screen,
            Verdict::Warning,
            "desktop capabilities are configured, and the agent is in no desktop session: neither DISPLAY nor \
             WAYLAND_DISPLAY is set",
        )
        .with(
            "run it in the session of who sits there, as docs/agent.md shows: a service of the system opens nothing there",
        ),
    }
}

fn certificate(facts: &Facts) -> Check {
    let Ok(Standing::Paired {
        life,
        renews_at,
        refused,
        ..
    }) = &facts.standing
    else {
        return skipped(Name::Certificate, "there is none");
    };
    let now = facts.now.as_second();
    let (ends, renews) = (at(life.not_after), at(*renews_at));
    match life.at(now) {
        LifeState::Expired => {
            check(Name::Certificate, Verdict::Failed, format!("it ended at {ends}"))
                .with("if the clock is right, pair this device again with a new code")
        }
        LifeState::NotYetValid => check(
            Name::Certificate,
            Verdict::Failed,
            format!("it does not hold before {}", at(life.not_before)),
        )
        .with("set this device's clock, which is behind"),
        LifeState::Valid if refused.is_some() => check(
            Name::Certificate,
            Verdict::Warning,
            format!(
                "it ends at {ends}, and the last renewal was not accepted: {}",
                refused.as_deref().unwrap_or_default()
            ),
        )
        .with("ask the cluster's administrator to check the gateways: an ended certificate cannot be renewed"),
        LifeState::Valid if now > renews_at.saturating_add(LATE_SECONDS) => check(
            Name::Certificate,
            Verdict::Warning,
            format!("it ends at {ends}, and should have been renewed at {renews}"),
        )
        .with("start the agent and see that it reaches a gateway: an ended certificate cannot be renewed"),
        LifeState::Valid => ok(
            Name::Certificate,
            format!("it ends at {ends}, and is renewed from {renews} on"),
        ),
    }
}

fn dns(gateway: &Gateway) -> Check {
    match &gateway.dns {
        Ok(found) => {
            let found: Vec<String> = found.iter().map(|one| one.ip().to_string()).collect();
            ok(Name::Dns, found.join(", "))
        }
        Err(why) => check(Name::Dns, Verdict::Failed, why).with(
            "ask your network's administrator why this name is not known here: resolvectl status",
        ),
    }
    .about(gateway)
}

fn port(visit: &Visit) -> Check {
    match &visit.port {
        Ok(()) => ok(Name::Port, "it can be reached"),
        Err(why) => check(Name::Port, Verdict::Failed, why)
            .with("have TCP to this address allowed, and see that a gateway listens there"),
    }
}

fn tls(visit: &Visit) -> Check {
    match &visit.tls {
        None => skipped(Name::Tls, "it cannot be reached"),
        Some(Tls::NotPaired) => skipped(Name::Tls, "this device has no certificate to show yet"),
        Some(Tls::Untrusted(why)) => check(Name::Tls, Verdict::Failed, why).with(
            "see that the clock is right and that nobody is between you and the gateway; if so, \
             run `fairlead-agent unpair`, then pair again",
        ),
        Some(Tls::Broken(why)) => check(Name::Tls, Verdict::Failed, why).with(
            "see that a gateway listens there, and that nothing on the way changes what is sent",
        ),
        Some(Tls::Refused(why)) => check(
            Name::Tls,
            Verdict::Failed,
            format!("it refused this device's certificate: {why}"),
        )
        .with("ask your administrator whether this Device was suspended, revoked or deleted"),
        Some(Tls::Fine { life, .. }) => {
            let until =
                life.map(|life| format!(", whose certificate ends at {}", at(life.not_after)));
            let until = until.unwrap_or_default();
            ok(
                Name::Tls,
                format!("a gateway of the authority that this device believes{until}"),
            )
        }
    }
}

/// By what the gateways' clocks say, and otherwise by what this device's certificate can say.
fn clock(facts: &Facts) -> Check {
    let seen = facts
        .gateways
        .iter()
        .flat_map(|gateway| &gateway.visits)
        .filter_map(|visit| match visit.tls {
            Some(Tls::Fine { clocks, .. }) => clocks,
            _ => None,
        });
    let ahead = seen.map(|(theirs, ours)| ours.saturating_sub(theirs));
    let set = "have it set: timedatectl set-ntp true";
    if let Some(ahead) = ahead.min_by_key(|ahead| ahead.saturating_abs()) {
        let by = ahead.saturating_abs();
        let word = if ahead < 0 { "behind" } else { "ahead of" };
        let found = format!("{by} s {word} the gateway's");
        return if by <= FINE_SECONDS {
            ok(
                Name::Clock,
                format!("it says {:.0}, as the gateways do", facts.now),
            )
        } else if by <= MOST_SECONDS {
            check(Name::Clock, Verdict::Warning, found).with(set)
        } else {
            check(Name::Clock, Verdict::Failed, found).with(set)
        };
    }
    match &facts.standing {
        Ok(Standing::Paired { life, .. }) if facts.now.as_second() < life.not_before => check(
            Name::Clock,
            Verdict::Failed,
            format!(
                "it says {:.0}, which is before this device's certificate",
                facts.now
            ),
        )
        .with(set),
        Ok(_) | Err(_) => skipped(
            Name::Clock,
            format!("it says {:.0}, and no gateway could be asked", facts.now),
        ),
    }
}

fn at(second: i64) -> String {
    Timestamp::from_second(second).map_or_else(|_| second.to_string(), crate::upstream::rfc3339)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000_000;

    /// Nothing is wrong.
    fn facts() -> Facts {
        Facts {
            now: Timestamp::from_second(NOW).unwrap(),
            configuration: None,
            capabilities: (Vec::new(), 3),
            folder: Folder::Fine("/s".to_owned()),
            disk: Ok(Disk {
                free_bytes: 1 << 30,
                free_files: Some(7),
                read_only: false,
            }),
            standing: Ok(Standing::Paired {
                device: "kitchen/lamp".to_owned(),
                life: Life {
                    not_before: NOW - 100,
                    not_after: NOW + 9_000,
                },
                renews_at: NOW + 5_000,
                refused: None,
            }),
            journal: Ok((Counts::default(), 8)),
            process: Some(7),
            socket: Socket::Open,
            groups: Some(Controllers {
                memory: true,
                pids: true,
            }),
            screen: Screen::Session,
            gateways: vec![gateway(Tls::Fine {
                life: None,
                clocks: Some((NOW, NOW)),
            })],
        }
    }

    fn gateway(tls: Tls) -> Gateway {
        Gateway {
            address: "g:1".to_owned(),
            proxy: None,
            dns: Ok(vec!["127.0.0.1:1".parse().unwrap()]),
            visits: vec![visit(1, Ok(()), Some(tls))],
        }
    }

    fn visit(last: u8, port: Result<(), &str>, tls: Option<Tls>) -> Visit {
        Visit {
            address: ([10, 0, 0, last], 7443).into(),
            port: port.map_err(str::to_owned),
            tls,
        }
    }

    fn clocks(ours: i64) -> Tls {
        Tls::Fine {
            life: None,
            clocks: Some((NOW, ours)),
        }
    }

    /// What is not fine.
    fn findings(facts: &Facts) -> Vec<(Name, Verdict)> {
        let checks = judge(facts).checks.into_iter();
        let bad = checks.filter(|check| check.result != Verdict::Ok);
        bad.map(|check| (check.name, check.result)).collect()
    }

    #[test]
    fn a_healthy_device_is_told_so() {
        let report = judge(&facts());
        assert_eq!(findings(&facts()), []);
        assert_eq!(report.result, Verdict::Ok);
        assert!(
            report
                .to_string()
                .ends_with("15 ok, 0 warnings, 0 failed, 0 skipped")
        );
    }

    type Change = fn(&mut Facts);

    fn check_rows(rows: &[(Change, &[(Name, Verdict)])]) {
        for (index, (change, expected)) in rows.iter().enumerate() {
            let mut facts = facts();
            change(&mut facts);
            assert_eq!(findings(&facts), *expected, "row {index}");
            for check in judge(&facts).checks {
                let is_bad = check.result >= Verdict::Warning;
                assert_eq!(check.remedy.is_some(), is_bad, "row {index}: {check:?}");
            }
        }
    }

    fn life(facts: &mut Facts, not_before: i64, not_after: i64, renews: i64) {
        facts.standing = Ok(Standing::Paired {
            device: "kitchen/lamp".to_owned(),
            life: Life {
                not_before,
                not_after,
            },
            renews_at: renews,
            refused: None,
        });
    }

    fn refuse(facts: &mut Facts) {
        if let Ok(Standing::Paired { refused, .. }) = &mut facts.standing {
            *refused = Some("the trust bundle is older".to_owned());
        }
    }

    fn free(facts: &mut Facts, free_bytes: u64, free_files: Option<u64>, read_only: bool) {
        facts.disk = Ok(Disk {
            free_bytes,
            free_files,
            read_only,
        });
    }

    #[test]
    fn each_trouble_of_this_device_is_found_alone_and_what_is_bad_has_a_remedy() {
        use Verdict::{Failed, Skipped, Warning};
        check_rows(&[
            (
                |f| f.capabilities.0.push("a.toml:1: no".to_owned()),
                &[(Name::Capabilities, Warning)],
            ),
            (
                |f| f.folder = Folder::Missing("/s".to_owned()),
                &[(Name::StateFolder, Warning)],
            ),
            (
                |f| {
                    f.folder = Folder::Refused {
                        what: "x".to_owned(),
                        owner: Some(3),
                    }
                },
                &[(Name::StateFolder, Failed)],
            ),
            (|f| free(f, 1 << 20, None, false), &[(Name::Disk, Failed)]),
            (|f| free(f, 1 << 25, None, false), &[(Name::Disk, Warning)]),
            (
                |f| free(f, 1 << 30, Some(0), false),
                &[(Name::Disk, Failed)],
            ),
            (|f| free(f, 1 << 30, None, true), &[(Name::Disk, Failed)]),
            (|f| f.disk = Err("?".to_owned()), &[(Name::Disk, Skipped)]),
            (
                |f| f.journal = Ok((Counts::default(), 1 << 30)),
                &[(Name::Journal, Warning)],
            ),
            (
                |f| f.process = None,
                &[(Name::Process, Warning), (Name::ControlGroups, Skipped)],
            ),
            (|f| f.groups = None, &[(Name::ControlGroups, Warning)]),
            (
                |f| f.groups = Some(Controllers::default()),
                &[(Name::ControlGroups, Warning)],
            ),
            (|f| f.screen = Screen::NoSession, &[(Name::Screen, Warning)]),
            (|f| f.screen = Screen::Unused, &[(Name::Screen, Skipped)]),
            (|f| f.screen = Screen::Unknown, &[(Name::Screen, Skipped)]),
            (|f| f.socket = Socket::Closed, &[(Name::Socket, Warning)]),
            (|f| f.socket = Socket::Forbidden, &[(Name::Socket, Warning)]),
            (refuse, &[(Name::Certificate, Warning)]),
            (
                |f| life(f, NOW - 9, NOW - 1, NOW - 3),
                &[(Name::Certificate, Failed)],
            ),
            (
                |f| life(f, NOW + 9, NOW + 99, NOW + 50),
                &[(Name::Certificate, Failed)],
            ),
            (
                |f| life(f, NOW - 9_000, NOW + 9, NOW - 3_601),
                &[(Name::Certificate, Warning)],
            ),
            (|f| life(f, NOW - 9_000, NOW + 9, NOW - 3_599), &[]),
        ]);
    }

    #[test]
    fn each_trouble_on_the_way_is_found_and_what_depends_on_it_is_skipped() {
        use Verdict::{Failed, Skipped, Warning};
        check_rows(&[
            (|f| f.gateways = vec![gateway(clocks(NOW + 30))], &[]),
            (
                |f| f.gateways = vec![gateway(clocks(NOW - 31))],
                &[(Name::Clock, Warning)],
            ),
            (
                |f| f.gateways = vec![gateway(clocks(NOW + 241))],
                &[(Name::Clock, Failed)],
            ),
            // One gateway whose own clock is wrong is not believed against another.
            (|f| f.gateways.push(gateway(clocks(NOW + 999))), &[]),
            (
                |f| f.gateways = vec![gateway(Tls::Refused("Revoked".to_owned()))],
                &[(Name::Tls, Failed), (Name::Clock, Skipped)],
            ),
            (
                |f| f.gateways = vec![gateway(Tls::Untrusted("other".to_owned()))],
                &[(Name::Tls, Failed), (Name::Clock, Skipped)],
            ),
            (
                |f| {
                    f.gateways[0].visits = vec![visit(1, Err("refused"), None)];
                },
                &[
                    (Name::Port, Failed),
                    (Name::Tls, Skipped),
                    (Name::Clock, Skipped),
                ],
            ),
            (
                |f| {
                    f.gateways[0] = Gateway {
                        dns: Err("no such name".to_owned()),
                        visits: Vec::new(),
                        ..f.gateways[0].clone()
                    };
                },
                &[
                    (Name::Dns, Failed),
                    (Name::Port, Skipped),
                    (Name::Tls, Skipped),
                    (Name::Clock, Skipped),
                ],
            ),
        ]);
    }

    #[test]
    fn each_address_is_named_and_a_silent_one_is_no_failure_beside_one_that_answers() {
        use Verdict::{Failed, Ok as Fine, Skipped, Warning};
        let fine = || Tls::Fine {
            life: None,
            clocks: None,
        };
        for (second, expected) in [
            (
                visit(2, Ok(()), Some(fine())),
                [Warning, Skipped, Fine, Fine],
            ),
            (
                visit(2, Ok(()), Some(Tls::Broken("x".to_owned()))),
                [Failed, Skipped, Fine, Failed],
            ),
        ] {
            let mut facts = facts();
            facts.gateways[0].proxy = Some("http://proxy.test:1".to_owned());
            facts.gateways[0].visits = vec![visit(1, Err("no answer"), None), second];
            let checks = judge(&facts).checks;
            let on_the_way = checks
                .iter()
                .filter(|check| matches!(check.name, Name::Port | Name::Tls));
            let found: Vec<_> = on_the_way
                .map(|check| (check.subject.clone().unwrap(), check.result))
                .collect();
            let first = "g:1 through http://proxy.test:1 at 10.0.0.1:7443";
            let second = "g:1 through http://proxy.test:1 at 10.0.0.2:7443";
            let subjects = [first, first, second, second].map(str::to_owned);
            let expected: Vec<_> = subjects.into_iter().zip(expected).collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn what_explains_itself_is_passed_on() {
        let mut facts = facts();
        facts.configuration = Some("agent.toml:1: no".to_owned());
        facts.standing = Err("identity.json is damaged".to_owned());
        facts.journal = Err("the journal is damaged".to_owned());
        let report = judge(&facts);
        assert_eq!(report.result, Verdict::Failed);
        for said in [
            "agent.toml:1: no",
            "identity.json is damaged",
            "the journal is damaged",
        ] {
            assert!(
                report.checks.iter().any(|check| check.found == said),
                "{said}"
            );
        }
    }

    #[test]
    fn a_device_that_is_not_paired_is_warned_of_that_alone() {
        let mut facts = facts();
        facts.standing = Ok(Standing::Unpaired);
        facts.process = None;
        facts.socket = Socket::Missing;
        facts.gateways.clear();
        let report = judge(&facts);
        assert_eq!(report.result, Verdict::Warning);
        let bad = |check: &&Check| check.result >= Verdict::Warning;
        assert_eq!(report.checks.iter().filter(bad).count(), 1);
    }

    #[test]
    fn a_clock_before_the_certificate_is_wrong_though_nobody_can_be_asked() {
        let mut facts = facts();
        facts.gateways.clear();
        facts.now = Timestamp::from_second(NOW - 101).unwrap();
        let expected = (Name::Clock, Verdict::Failed);
        assert!(findings(&facts).contains(&expected));
    }
}
