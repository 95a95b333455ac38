//! What the facts come to. Pure.

use crds::names::is_operator_identity;
use jiff::{SignedDuration, Timestamp};

use super::{
    Check, Verdict,
    expected::{MUTATING, MUTATING_MINOR, OLDEST_MINOR, PROGRAM_ROLES, RESOURCES, VALIDATING},
    observe::{Beat, Look, Observed, Unseen},
};
use crate::show::age;

/// An authority that ends within this needs somebody.
const AUTHORITY_LEFT: SignedDuration = SignedDuration::from_hours(30 * 24);
/// A serving certificate is renewed long before this.
const SERVING_LEFT: SignedDuration = SignedDuration::from_hours(12);

/// In the order in which one depends on another.
pub fn judge(observed: &Observed, now: Timestamp) -> Vec<Check> {
    let mut checks = vec![
        version(&observed.minor),
        lacking(
            "resources",
            &observed.resources,
            &RESOURCES,
            "kubectl apply -f crds/generated",
        ),
        lacking(
            "policies",
            &observed.policies,
            &VALIDATING,
            "kubectl apply -f crds/policies",
        ),
        lacking(
            "policies bound",
            &observed.bindings,
            &VALIDATING,
            "kubectl apply -f crds/policies: a policy that is not bound, does not deny or is narrowed lets requests pass",
        ),
        mutating(observed),
        lacking(
            "roles",
            &observed.roles,
            &PROGRAM_ROLES,
            "kubectl apply -f crds/rbac",
        ),
        lacking(
            "roles bound",
            &observed.role_bindings,
            &PROGRAM_ROLES,
            "kubectl apply -f crds/rbac",
        ),
        operator(&observed.operator),
    ];
    checks.extend(gateways(&observed.gateways));
    checks.push(authorities(&observed.authorities, now));
    checks.push(serving(&observed.serving, now));
    checks
}

fn check(
    result: Verdict,
    name: &'static str,
    found: impl Into<String>,
    remedy: Option<&str>,
) -> Check {
    Check {
        result,
        name,
        found: found.into(),
        remedy: remedy.map(str::to_owned),
    }
}

/// What was not seen.
fn unseen(name: &'static str, why: &Unseen, missing: &str) -> Check {
    match why {
        Unseen::Forbidden(words) => check(
            Verdict::Skipped,
            name,
            format!("you may not see it: {words}"),
            None,
        ),
        Unseen::Missing => check(Verdict::Failed, name, "there is none", Some(missing)),
        Unseen::Failed(words) => check(
            Verdict::Failed,
            name,
            words,
            Some("see whether the API server is well"),
        ),
    }
}

fn version(minor: &Look<u32>) -> Check {
    let name = "kubernetes";
    match minor {
        Err(why) => unseen(name, why, "see whether the API server is well"),
        Ok(minor) if *minor < OLDEST_MINOR => check(
            Verdict::Failed,
            name,
            format!("1.{minor}"),
            Some("use Kubernetes 1.34 or later: the policies are not held by earlier ones"),
        ),
        Ok(minor) => check(Verdict::Ok, name, format!("1.{minor}"), None),
    }
}

fn lacking(name: &'static str, look: &Look<Vec<String>>, expected: &[&str], remedy: &str) -> Check {
    match look {
        Err(why) => unseen(name, why, remedy),
        Ok(found) => {
            let lacking: Vec<_> = expected
                .iter()
                .copied()
                .filter(|wanted| !found.iter().any(|found| found == wanted))
                .collect();
            if lacking.is_empty() {
                check(
                    Verdict::Ok,
                    name,
                    format!("all {} are there", expected.len()),
                    None,
                )
            } else {
                check(
                    Verdict::Failed,
                    name,
                    format!("lacking: {}", lacking.join(", ")),
                    Some(remedy),
                )
            }
        }
    }
}

fn mutating(observed: &Observed) -> Check {
    let name = "who decides is stamped";
    let remedy = "kubectl apply -f crds/policies";
    match &observed.mutating {
        Err(Unseen::Missing)
            if observed
                .minor
                .as_ref()
                .is_ok_and(|minor| *minor < MUTATING_MINOR) =>
        {
            check(
                Verdict::Ok,
                name,
                "not served before Kubernetes 1.36: who decides writes his own name, as this program does, and a policy demands that it is true",
                None,
            )
        }
        Err(Unseen::Missing) => check(
            Verdict::Warning,
            name,
            "MutatingAdmissionPolicy v1 is not served: who decides writes his own name",
            Some("serve admissionregistration.k8s.io/v1 whole, or leave it"),
        ),
        Err(why) => unseen(name, why, remedy),
        Ok((policies, bindings)) => {
            let both: Vec<String> = policies
                .iter()
                .filter(|name| bindings.contains(name))
                .cloned()
                .collect();
            lacking(name, &Ok(both), &MUTATING, remedy)
        }
    }
}

fn operator(look: &Look<Beat>) -> Check {
    let name = "operator";
    let remedy = "see whether the operator runs, and its log";
    match look {
        Err(why) => unseen(name, why, remedy),
        Ok(beat) => {
            let who = beat.holder.as_deref().unwrap_or("nobody");
            if beat.holder.is_some() && !is_operator_identity(who) {
                return check(
                    Verdict::Failed,
                    name,
                    format!("{who:?} holds the Lease and is not an operator"),
                    Some(
                        "an operator takes it over within a minute: see whether one runs; find out who may write Leases in fairlead-system",
                    ),
                );
            }
            alive(name, &format!("{who} leads"), beat, remedy)
        }
    }
}

fn gateways(look: &Look<Vec<Beat>>) -> Vec<Check> {
    let name = "gateway";
    let remedy = "see whether the gateways run, and their logs";
    let beats = match look {
        Err(why) => return vec![unseen(name, why, remedy)],
        Ok(beats) if beats.is_empty() => {
            return vec![check(
                Verdict::Failed,
                name,
                "none has a Lease",
                Some(remedy),
            )];
        }
        Ok(beats) => beats,
    };
    let mut checks = Vec::new();
    for beat in beats {
        checks.push(alive(name, &beat.name, beat, remedy));
        checks.push(match (&beat.address, &beat.reached) {
            (None, _) => check(
                Verdict::Failed,
                "gateway reachable",
                format!("{} does not say where", beat.name),
                Some("give the gateway --advertise HOST:PORT"),
            ),
            (Some(address), Some(Ok(()))) => check(
                Verdict::Ok,
                "gateway reachable",
                format!("{address} from here"),
                None,
            ),
            // Devices may reach what this machine does not.
            (Some(address), Some(Err(why))) => check(
                Verdict::Warning,
                "gateway reachable",
                format!("{address} not from here: {why}"),
                Some("see whether devices reach it: service, firewall, DNS"),
            ),
            (Some(address), None) => check(
                Verdict::Skipped,
                "gateway reachable",
                format!("{address} was not tried"),
                None,
            ),
        });
    }
    checks
}

fn alive(name: &'static str, who: &str, beat: &Beat, remedy: &str) -> Check {
    let renewed = format!(
        "{who}, renewed {}",
        age::until(beat.renewed_at, beat.seen_at)
    );
    if let Some(why) = &beat.not_credible
        && beat.renewed != Some(false)
    {
        return check(
            Verdict::Warning,
            name,
            format!("{renewed}: {why}"),
            Some(
                "find out who wrote the Lease; where only its times are wrong, set the clock of that machine right",
            ),
        );
    }
    match (beat.is_in_doubt(), beat.renewed) {
        (false, _) => check(Verdict::Ok, name, renewed, None),
        (true, Some(true)) => check(
            Verdict::Warning,
            name,
            format!("{renewed} by the clock here, and it goes on"),
            Some("the clocks of that machine and of this one differ: set them right"),
        ),
        (true, None | Some(false)) => check(Verdict::Failed, name, renewed, Some(remedy)),
    }
}

fn authorities(look: &Look<Vec<Timestamp>>, now: Timestamp) -> Check {
    let name = "authority";
    match look {
        Err(why) => unseen(
            name,
            why,
            "the operator makes the trust bundle: see whether it runs, and its log",
        ),
        Ok(ends) => match ends.iter().max() {
            None => check(
                Verdict::Failed,
                name,
                "the trust bundle is empty",
                Some("see the operator's log"),
            ),
            Some(end) => life(
                name,
                *end,
                AUTHORITY_LEFT,
                now,
                "replace the authority before it ends: devices trust nothing else",
            ),
        },
    }
}

fn serving(look: &Look<Timestamp>, now: Timestamp) -> Check {
    let name = "gateway certificate";
    let remedy = "the operator renews it: see whether it runs, and its log";
    match look {
        Err(why) => unseen(name, why, remedy),
        Ok(end) => life(name, *end, SERVING_LEFT, now, remedy),
    }
}

fn life(
    name: &'static str,
    end: Timestamp,
    least: SignedDuration,
    now: Timestamp,
    remedy: &str,
) -> Check {
    let found = format!("ends {}", age::until(Some(end), now));
    if end <= now {
        check(
            Verdict::Failed,
            name,
            found.replace("ends", "ended"),
            Some(remedy),
        )
    } else if end.duration_since(now) < least {
        check(Verdict::Warning, name, found, Some(remedy))
    } else {
        check(Verdict::Ok, name, found, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2030-01-01T12:00:00Z".parse().unwrap()
    }

    fn beat(name: &str, seconds_ago: i64) -> Beat {
        Beat {
            name: name.to_owned(),
            holder: Some("fairlead-operator-1".to_owned()),
            renewed_at: Some(now() - SignedDuration::from_secs(seconds_ago)),
            seen_at: now(),
            seconds: 15,
            not_credible: None,
            renewed: None,
            address: Some("gateway:8443".to_owned()),
            reached: Some(Ok(())),
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "it stands where a look does")]
    fn names(names: &[&str]) -> Look<Vec<String>> {
        Ok(names.iter().map(|&name| name.to_owned()).collect())
    }

    fn healthy() -> Observed {
        let all = |all: &[&str]| names(all).unwrap();
        Observed {
            minor: Ok(36),
            resources: names(&RESOURCES),
            policies: names(&VALIDATING),
            bindings: names(&VALIDATING),
            mutating: Ok((all(&MUTATING), all(&MUTATING))),
            roles: names(&PROGRAM_ROLES),
            role_bindings: names(&PROGRAM_ROLES),
            operator: Ok(beat("fairlead-operator", 3)),
            gateways: Ok(vec![beat("gateway-0", 3)]),
            authorities: Ok(vec![now() + SignedDuration::from_hours(1000)]),
            serving: Ok(now() + SignedDuration::from_hours(100)),
        }
    }

    fn findings(change: impl FnOnce(&mut Observed)) -> Vec<Check> {
        let mut observed = healthy();
        change(&mut observed);
        judge(&observed, now())
            .into_iter()
            .filter(|check| check.result != Verdict::Ok)
            .collect()
    }

    #[test]
    fn nothing_is_found_where_nothing_is_wrong() {
        assert_eq!(findings(|_| {}), []);
    }

    #[test]
    fn each_fault_is_found_alone_and_says_what_to_do() {
        type Fault = fn(&mut Observed);
        let faults: &[(&str, Verdict, Fault)] = &[
            ("kubernetes", Verdict::Failed, |o| o.minor = Ok(33)),
            ("resources", Verdict::Failed, |o| {
                o.resources = Err(Unseen::Missing);
            }),
            ("policies", Verdict::Failed, |o| {
                o.policies = names(&VALIDATING[1..]);
            }),
            ("policies bound", Verdict::Failed, |o| {
                o.bindings = names(&[]);
            }),
            ("who decides is stamped", Verdict::Warning, |o| {
                o.mutating = Err(Unseen::Missing);
            }),
            ("roles", Verdict::Failed, |o| o.roles = names(&[])),
            ("operator", Verdict::Failed, |o| {
                o.operator = Err(Unseen::Missing);
            }),
            ("operator", Verdict::Failed, |o| {
                o.operator = Ok(Beat {
                    renewed: Some(false),
                    ..beat("fairlead-operator", 300)
                });
            }),
            ("operator", Verdict::Failed, |o| {
                o.operator = Ok(Beat {
                    holder: Some("gateway-0".to_owned()),
                    ..beat("fairlead-operator", 3)
                });
            }),
            ("operator", Verdict::Warning, |o| {
                o.operator = Ok(Beat {
                    not_credible: Some("its duration is too long".to_owned()),
                    ..beat("fairlead-operator", 3)
                });
            }),
            ("gateway", Verdict::Failed, |o| o.gateways = Ok(Vec::new())),
            // A renewal that is still to come, and no other one.
            ("gateway", Verdict::Failed, |o| {
                o.gateways = Ok(vec![Beat {
                    renewed: Some(false),
                    ..beat("gateway-0", -86_400)
                }]);
            }),
            ("gateway reachable", Verdict::Warning, |o| {
                o.gateways = Ok(vec![Beat {
                    reached: Some(Err("refused".to_owned())),
                    ..beat("gateway-0", 3)
                }]);
            }),
            ("gateway reachable", Verdict::Failed, |o| {
                o.gateways = Ok(vec![Beat {
                    address: None,
                    ..beat("gateway-0", 3)
                }]);
            }),
            ("authority", Verdict::Warning, |o| {
                o.authorities = Ok(vec![now() + SignedDuration::from_hours(48)]);
            }),
            ("gateway certificate", Verdict::Failed, |o| {
                o.serving = Ok(now() - SignedDuration::from_hours(1));
            }),
        ];
        for (name, verdict, fault) in faults {
            let found = findings(fault);
            let [found] = found.as_slice() else {
                panic!("{name}: {found:?}")
            };
            assert_eq!((found.name, found.result), (*name, *verdict), "{found:?}");
            assert!(found.remedy.is_some(), "{name}");
        }
    }

    #[test]
    fn what_the_caller_may_not_see_is_no_fault() {
        let found = findings(|o| {
            o.policies = Err(Unseen::Forbidden("no".to_owned()));
            o.serving = Err(Unseen::Forbidden("no".to_owned()));
        });
        assert!(
            found.iter().all(|check| check.result == Verdict::Skipped),
            "{found:?}"
        );
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn a_lease_that_beats_is_alive_whatever_the_clock_here_says() {
        let found = findings(|o| {
            o.gateways = Ok(vec![Beat {
                renewed: Some(true),
                ..beat("gateway-0", 3000)
            }]);
        });
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].result, Verdict::Warning);
        // One that was looked at twice only because another one was doubted.
        let fresh = |o: &mut Observed| {
            o.operator = Ok(Beat {
                renewed: Some(true),
                ..beat("operator", 3)
            });
        };
        assert_eq!(findings(fresh), []);
        assert!(
            found[0].remedy.as_deref().unwrap().contains("clocks"),
            "{found:?}"
        );
    }

    #[test]
    fn one_dead_gateway_is_found_and_the_other_one_is_well() {
        let found = findings(|o| {
            o.gateways = Ok(vec![
                Beat {
                    renewed: Some(true),
                    ..beat("gateway-0", 4)
                },
                Beat {
                    renewed: Some(false),
                    ..beat("gateway-1", 40)
                },
            ]);
        });
        let [dead] = found.as_slice() else {
            panic!("{found:?}")
        };
        assert_eq!(dead.result, Verdict::Failed);
        assert!(
            dead.found.starts_with("gateway-1, renewed 40s ago"),
            "{dead:?}"
        );
    }

    #[test]
    fn before_mutating_policies_are_served_their_absence_is_no_fault() {
        assert_eq!(
            findings(|o| {
                o.minor = Ok(34);
                o.mutating = Err(Unseen::Missing);
            }),
            []
        );
    }
}
