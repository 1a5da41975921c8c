//! Configurations by chance, one after another: what is made from the snapshots before is what would be rendered anew.

#[allow(
    unreachable_pub,
    dead_code,
    reason = "other packages' tests have it as a module, too"
)]
#[path = "../../routing/tests/support/configs.rs"]
mod configs;

use sidetrack_config_agent::render::{DataPlane, DataPlaneKind, FilterCode, ResourceType, Snapshots};
use sidetrack_routing::{decode, validate};

const CONFIGS: u64 = 1_000;

const GRPC: DataPlane = DataPlane {
    kind: DataPlaneKind::Grpc,
    scope: None,
};

#[test]
fn what_follows_is_what_would_be_rendered_anew() {
    let code = || FilterCode::file("/filter.wasm".into());
    let mut before: Option<Snapshots> = None;
    let mut compared = 0;
    for number in 0..CONFIGS {
        let Ok(config) = decode(&configs::config(number), validate) else {
            continue;
        };
        let anew = Snapshots::new(config.clone(), code());
        let next = match &before {
            Some(before) => before.next(config),
            None => Snapshots::new(config, code()),
        };
        assert_eq!(next.version(), anew.version(), "configuration {number}");
        for plane in [DataPlane::NEWEST, GRPC] {
            let (next, anew) = (next.of(plane), anew.of(plane));
            for kind in ResourceType::ALL {
                let (next, anew) = (next.resources(kind), anew.resources(kind));
                let same = next
                    .iter()
                    .zip(anew.iter())
                    .all(|(one, other)| one.any() == other.any());
                assert!(
                    same && next.len() == anew.len(),
                    "configuration {number}: other {kind} for {plane:?}"
                );
            }
        }
        before = Some(next);
        compared += 1;
    }
    println!("{compared} of {CONFIGS} configurations are right; each was rendered anew and from the one before");
    assert!(compared > CONFIGS / 4);
}
