//! The account under which the operator makes dry runs: whatever else it asks for is refused, also where no other policy
//! speaks of it.

use serde_json::json;

use super::objects::{code, request};
use super::step::{DORA, Rule, Who};

const PROBE: Who = Who("system:serviceaccount:fairlead-system:fairlead-probe");

pub fn rules() -> Vec<Rule> {
    let refusal = "the account fairlead-probe makes dry runs and nothing else";
    vec![Rule::new(
        "probe::nothing_that_the_account_of_dry_runs_asks_for_is_stored",
        [
            PROBE.creates(code("mine", &json!({}))).refused(refusal),
            PROBE.creates(request("mine")).refused(refusal),
            DORA.creates(request("one")),
            PROBE
                .writes_status("pairingrequests/one", &json!({ "observedGeneration": 5 }))
                .refused("denied request"),
            PROBE
                .deletes("pairingrequests/one")
                .refused("cannot delete"),
        ],
    )]
}
