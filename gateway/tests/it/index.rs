//! What the gateway knows of the cluster, where the cluster holds what is unusual.

use std::sync::Arc;

use gateway::{
    domain::device::DeviceKey,
    index::{self, Index},
};
use runtime::shutdown::Supervisor;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    api::{FakeApi, now},
    hub::SOON,
};

fn put_invocation(api: &FakeApi, name: &str, input: &Value) {
    api.put(
        "capabilityinvocations",
        json!({
            "apiVersion": "fairlead.dev/v1alpha1", "kind": "CapabilityInvocation",
            "metadata": {
                "namespace": "kitchen", "name": name, "uid": format!("uid-of-{name}"),
                "creationTimestamp": now(),
            },
            "spec": { "deviceRef": { "name": "lamp" }, "capability": "echo", "input": input },
        }),
    );
}

/// An index that has been filled.
async fn filled(api: &FakeApi, supervisor: &Supervisor) -> Arc<Index> {
    let index = Arc::new(Index::default());
    let tasks = supervisor.tasks();
    let listener: index::Listener = Arc::new(|_| {});
    let (synced, watches) = index::watch::start(
        &index,
        &api.client(),
        "fairlead-system",
        &listener,
        &tasks.token(),
    );
    for watch in watches {
        tasks.spawn(watch);
    }
    timeout(SOON, synced.wait())
        .await
        .expect("the index is filled");
    index
}

fn open(index: &Index) -> usize {
    index
        .invocations
        .of(&DeviceKey::new("kitchen", "lamp"))
        .entries
        .len()
}

#[tokio::test]
async fn an_input_that_is_nested_too_deeply_does_not_keep_the_index_empty() {
    let (api, supervisor) = (FakeApi::new(), Supervisor::new());
    let deep = (0..200).fold(json!(1), |inner, _| json!([inner]));
    put_invocation(&api, "before", &json!(1));
    put_invocation(&api, "deep", &deep);
    put_invocation(&api, "later", &json!(1));
    let index = filled(&api, &supervisor).await;
    assert_eq!(open(&index), 2);

    // And none that comes later ends the watch.
    put_invocation(&api, "deep-2", &deep);
    put_invocation(&api, "last", &json!(1));
    let last = async {
        while open(&index) != 3 {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, last).await.expect("the watch goes on");
}

#[tokio::test]
async fn invocations_beyond_those_that_are_kept_come_when_there_is_room() {
    let (api, supervisor) = (FakeApi::new(), Supervisor::new());
    for number in 0..300 {
        put_invocation(&api, &format!("n{number}"), &json!(number));
    }
    let index = filled(&api, &supervisor).await;
    assert_eq!(open(&index), 272, "the bound, and some to be ended");
    let lamp = DeviceKey::new("kitchen", "lamp");
    for entry in index.invocations.of(&lamp).entries.iter().take(100) {
        let name = &entry.invocation.name;
        api.delete("capabilityinvocations", "kitchen", name);
        index.invocations.remove(&lamp, name);
    }
    let others = async {
        while open(&index) != 200 {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, others).await.expect("the others are fetched");
}
