//! `policy.toml`. What is taken comes back from a task's snapshot as it was, and workers take it as well.
#![no_main]

#[path = "../../control-plane/src/policy.rs"]
#[allow(dead_code)]
mod policy;

#[path = "../../control-plane/src/db"]
#[allow(dead_code)]
mod db {
    pub(crate) mod limits;
}

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use mainloop_worker_agent::sidecar::proxy::forward::HostPattern;

use crate::policy::{Policy, allows_repository, worker_policy};

fuzz_target!(|text: &str| {
    let Ok(policy) = Policy::parse(text, Path::new("policy.toml")) else {
        return;
    };
    let snapshot = policy.snapshot();
    assert_eq!(Policy::of_snapshot(&snapshot), policy);
    let told = worker_policy(&snapshot);
    for host in &told.hosts {
        assert!(host.parse::<HostPattern>().is_ok(), "{host:?}");
    }
    for price in &told.prices {
        assert!(price.input >= 0 && price.output >= 0 && price.cache_write_1h >= 0);
    }
    for listed in &policy.repositories {
        let (owner, name) = listed.split_once('/').expect("owner/name");
        let named = [listed.clone()];
        assert!(
            !name.contains('/') && allows_repository(&named, owner, name),
            "{listed:?}"
        );
    }
    let _ = (policy.model(""), policy.toolchains_json());
});
