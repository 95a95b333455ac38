//! What this crate may not know: a program outside the cluster uses it.

#[test]
fn the_client_knows_nothing_of_the_insides_of_the_cluster() {
    let manifest = include_str!("../../Cargo.toml");
    let forbidden = [
        "console",
        "crds",
        "gateway",
        "node-agent",
        "operator",
        "proto",
        "runtime",
        "tonic",
    ];
    for line in manifest.lines() {
        let dependency = line.split(['.', '=', ' ']).next().unwrap_or_default();
        assert!(
            !forbidden.contains(&dependency),
            "client depends on {dependency}"
        );
    }
}
