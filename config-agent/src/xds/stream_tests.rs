//! The rules of the stream, against a proxy that behaves as Envoy was seen to.

#[path = "stream_tests/envoy.rs"]
mod envoy;

use serde_json::json;

use self::envoy::{Envoy, config, snapshot, snapshots};
use super::*;
use crate::render::{DataPlane, DataPlaneKind};

#[test]
fn clusters_and_endpoints_come_before_the_table() {
    let mut envoy = Envoy::connected(&snapshot(&["e1", "x"]));
    assert_eq!(envoy.stream.standing(), Standing::Pending);
    assert_eq!(envoy.accept_all(), ["CDS default:80 e1:80 x:80", "EDS", "ECDS"]);
    assert_eq!(envoy.stream.standing(), Standing::InForce);
}

#[test]
fn a_proxy_with_listeners_from_here_gets_them_before_the_table() {
    let mut envoy = Envoy::connected(&snapshot(&["x"]));
    envoy.ask(ResourceType::Listener, &[]);
    envoy.ask(ResourceType::Route, &["http", "grpc"]);
    assert_eq!(envoy.accept_all(), ["CDS default:80 x:80", "EDS", "LDS", "RDS", "ECDS"]);
}

#[test]
fn the_certificate_of_a_listener_from_here_is_waited_for() {
    let with_tls = config(&["x"], |config| {
        config["server"] = json!({"tls": {"cert": "/tls.crt", "key": "/tls.key"}});
    });
    let mut envoy = Envoy::connected(&with_tls);
    envoy.ask(ResourceType::Listener, &[]);
    envoy.accept_all();
    assert_eq!(envoy.stream.standing(), Standing::Pending);
    envoy.ask(ResourceType::Route, &["http", "grpc"]);
    envoy.accept_all();
    assert_eq!(envoy.stream.standing(), Standing::Pending);
    envoy.ask(ResourceType::Secret, &["server-certificate"]);
    assert_eq!(envoy.accept_all(), ["SDS"]);
    assert_eq!(envoy.stream.standing(), Standing::InForce);

    let mut has_listeners_of_its_own = Envoy::connected(&with_tls);
    has_listeners_of_its_own.accept_all();
    assert_eq!(has_listeners_of_its_own.stream.standing(), Standing::InForce);
}

#[test]
fn equal_content_is_no_push() {
    let mut envoy = Envoy::connected(&snapshot(&["e1"]));
    envoy.accept_all();
    envoy.offer(&snapshot(&["e1"]));
    assert!(envoy.waiting.is_empty());
    assert_eq!(envoy.stream.standing(), Standing::InForce);
}

#[test]
fn a_removed_cluster_stays_until_no_table_names_it() {
    let mut envoy = Envoy::connected(&snapshot(&["e1", "e2"]));
    envoy.accept_all();
    envoy.offer(&snapshot(&["e2", "e3"]));
    assert_eq!(
        envoy.accept_all(),
        [
            "CDS default:80 e1:80 e2:80 e3:80",
            "EDS",
            "ECDS",
            "CDS default:80 e2:80 e3:80",
        ]
    );
    assert_eq!(envoy.stream.standing(), Standing::InForce);
}

#[test]
fn a_rule_alone_moves_the_table_alone() {
    let mut envoy = Envoy::connected(&snapshot(&["e1", "e2"]));
    envoy.accept_all();
    envoy.offer(&snapshot(&["e2", "e1"]));
    assert_eq!(envoy.accept_all(), ["ECDS"]);
}

#[test]
fn of_the_snapshots_that_come_meanwhile_only_the_newest_counts() {
    let mut envoy = Envoy::connected(&snapshot(&["x1"]));
    envoy.offer(&snapshot(&["x2"]));
    envoy.offer(&snapshot(&["x3"]));
    envoy.offer(&snapshot(&["x4"]));
    let seen = envoy.accept_all();
    assert_eq!(seen.first().unwrap(), "CDS default:80 x1:80");
    assert!(
        !seen.iter().any(|push| push.contains("x2") || push.contains("x3")),
        "{seen:?}"
    );
    assert_eq!(seen.last().unwrap(), "CDS default:80 x4:80");
    assert_eq!(seen.iter().filter(|push| *push == "ECDS").count(), 2, "{seen:?}");
}

#[test]
fn changes_without_an_end_dont_keep_a_proxy_from_a_whole_configuration() {
    let mut envoy = Envoy::connected(&snapshot(&["x0"]));
    let mut in_force = Vec::new();
    for i in 1..100 {
        envoy.offer(&snapshot(&[&format!("x{i}")]));
        if !envoy.waiting.is_empty() {
            envoy.accept();
        }
        in_force.extend(envoy.stream.in_force().map(|offer| offer.revision));
    }
    in_force.dedup();
    assert!(in_force.len() > 20, "{in_force:?}");
}

#[test]
fn a_refused_push_is_not_repeated_until_it_changes() {
    let mut envoy = Envoy::connected(&snapshot(&["x1"]));
    envoy.accept_all();
    envoy.offer(&snapshot(&["bad"]));
    envoy.refuse();
    assert_eq!(envoy.stream.standing(), Standing::Refused);
    assert!(
        envoy.waiting.is_empty(),
        "neither the clusters again nor a table that names them"
    );
    envoy.offer(&snapshot(&["bad"]));
    assert!(envoy.waiting.is_empty());
    let nonce = envoy.nonces.get(&ResourceType::Cluster).cloned();
    envoy.send(ResourceType::Cluster, nonce, None);
    assert!(envoy.waiting.is_empty());
    envoy.offer(&snapshot(&["x2"]));
    assert_eq!(
        envoy.accept_all(),
        ["CDS default:80 x1:80 x2:80", "ECDS", "CDS default:80 x2:80"],
        "what was refused isn't held"
    );
    assert_eq!(envoy.stream.standing(), Standing::InForce);
}

#[test]
fn a_refused_table_leaves_its_clusters_and_the_way_back_open() {
    let mut envoy = Envoy::connected(&snapshot(&["x1"]));
    envoy.accept_all();
    envoy.offer(&snapshot(&["x2"]));
    envoy.accept();
    assert_eq!(envoy.waiting.keys().collect::<Vec<_>>(), [&ResourceType::FilterConfig]);
    envoy.refuse();
    assert_eq!(envoy.stream.standing(), Standing::Refused);
    envoy.offer(&snapshot(&["x1"]));
    let seen = envoy.accept_all();
    assert_eq!(envoy.stream.standing(), Standing::InForce);
    assert!(
        !seen.contains(&"ECDS".to_owned()),
        "the table in force is the right one already: {seen:?}"
    );
    assert_eq!(seen.last().unwrap(), "CDS default:80 x1:80");
}

#[test]
fn a_cluster_that_changed_gets_its_endpoints_again() {
    let mut envoy = Envoy::connected(&snapshot(&["e1", "e2"]));
    envoy.accept_all();
    let changed = config(&["e1", "e2"], |config| {
        config["services"]["e1"] = json!({"endpoints": ["127.0.0.1:1", "dns:1"]});
    });
    envoy.offer(&changed);
    assert_eq!(
        envoy.accept_all(),
        ["CDS default:80 e1:80 e2:80"],
        "e1 has no endpoints of its own any more, the others' are the same"
    );
    envoy.offer(&snapshot(&["e1", "e2"]));
    assert_eq!(envoy.accept_all(), ["CDS default:80 e1:80 e2:80", "EDS"]);
    assert_eq!(envoy.stream.standing(), Standing::InForce);
}

#[test]
fn an_answer_to_an_earlier_push_changes_nothing() {
    let mut envoy = Envoy::connected(&snapshot(&["x1"]));
    envoy.accept_all();
    let stale = envoy.nonces.get(&ResourceType::Cluster).cloned();
    envoy.offer(&snapshot(&["x2"]));
    envoy.send(ResourceType::Cluster, stale, Some("no"));
    assert_eq!(envoy.stream.standing(), Standing::Pending);
    let seen = envoy.accept_all();
    assert_eq!(seen.first().unwrap(), "CDS default:80 x1:80 x2:80");
    assert_eq!(envoy.stream.standing(), Standing::InForce);
}

#[test]
fn endpoints_of_the_clusters_on_their_way_dont_wait_for_a_newer_snapshot() {
    let mut envoy = Envoy::connected(&snapshot(&["x"]));
    envoy.accept_all();
    envoy.offer(&snapshot(&["e1"]));
    envoy.offer(&snapshot(&["e1", "e2"]));
    assert_eq!(envoy.waiting.keys().collect::<Vec<_>>(), [&ResourceType::Cluster]);
    envoy.accept();
    assert_eq!(
        envoy.waiting.keys().collect::<Vec<_>>(),
        [&ResourceType::Endpoints],
        "those of e1, or e1 never warms"
    );
    envoy.accept_all();
    assert_eq!(envoy.stream.standing(), Standing::InForce);
}

#[test]
fn a_proxy_that_comes_back_with_everything_gets_nothing() {
    let first = snapshot(&["e1", "x"]);
    let mut envoy = Envoy::connected(&first);
    envoy.accept_all();
    let mut back = Envoy {
        versions: envoy.versions,
        names: envoy.names,
        ..Envoy::default()
    };
    back.offer(&snapshot(&["e1", "x"]));
    for kind in [
        ResourceType::Cluster,
        ResourceType::Endpoints,
        ResourceType::FilterConfig,
    ] {
        back.send(kind, None, None);
        assert!(back.waiting.is_empty(), "{kind}");
    }
    assert_eq!(back.stream.standing(), Standing::InForce);
}

#[test]
fn names_nobody_has_are_waited_for_in_silence() {
    let mut envoy = Envoy::connected(&snapshot(&["x"]));
    envoy.accept_all();
    envoy.ask(ResourceType::Route, &["unknown"]);
    envoy.accept_all();
    envoy.ask(ResourceType::Endpoints, &["default:80", "unknown"]);
    assert!(envoy.waiting.is_empty());
}

#[test]
fn no_table_comes_before_the_endpoints_of_its_clusters_are_asked_for() {
    let mut envoy = Envoy::default();
    envoy.offer(&snapshot(&["e1"]));
    envoy.ask(ResourceType::Cluster, &[]);
    let clusters = envoy.waiting.remove(&ResourceType::Cluster).unwrap();
    envoy.acknowledge(&clusters);
    envoy.ask(ResourceType::FilterConfig, &["sidetrack"]);
    assert!(envoy.waiting.is_empty());
    envoy.ask(ResourceType::Endpoints, &["default:80"]);
    assert_eq!(envoy.accept_all(), ["EDS"]);
    envoy.ask(ResourceType::Endpoints, &["default:80", "e1:80"]);
    assert_eq!(envoy.accept_all(), ["EDS", "ECDS"]);
}

#[test]
fn what_a_proxy_hasnt_done_yet_is_said() {
    let says = |envoy: &Envoy| envoy.stream.missing().map(|missing| missing.to_string());
    let said = |reason: &str| Some(format!("hasn't {reason} yet"));
    let mut envoy = Envoy::default();
    envoy.offer(&snapshot(&["e1", "e2", "e3"]));
    assert_eq!(says(&envoy), said("asked for anything"));
    envoy.ask(ResourceType::FilterConfig, &["sidetrack"]);
    assert_eq!(says(&envoy), said("asked for CDS"));
    envoy.ask(ResourceType::Cluster, &[]);
    assert_eq!(says(&envoy), said("answered the push of CDS"));
    let clusters = envoy.waiting.remove(&ResourceType::Cluster).unwrap();
    envoy.acknowledge(&clusters);
    assert_eq!(
        says(&envoy),
        said("asked for EDS of default:80, e1:80, e2:80 and 1 more")
    );
    envoy.ask(ResourceType::Endpoints, &["default:80", "e1:80", "e3:80"]);
    assert_eq!(says(&envoy), said("answered the push of EDS"));
    envoy.accept();
    assert_eq!(says(&envoy), said("asked for EDS of e2:80"));
    envoy.ask(ResourceType::Endpoints, &["default:80", "e1:80", "e2:80", "e3:80"]);
    envoy.accept();
    assert_eq!(says(&envoy), said("answered the push of ECDS"));
    envoy.accept();
    assert_eq!(says(&envoy), None);

    let mut has_listeners_from_here = Envoy::default();
    has_listeners_from_here.offer(&snapshot(&["x"]));
    has_listeners_from_here.ask(ResourceType::Listener, &[]);
    has_listeners_from_here.accept();
    assert_eq!(says(&has_listeners_from_here), said("asked for ECDS"));
    has_listeners_from_here.ask(ResourceType::Cluster, &[]);
    has_listeners_from_here.ask(ResourceType::FilterConfig, &["sidetrack"]);
    has_listeners_from_here.accept_all();
    assert_eq!(says(&has_listeners_from_here), said("asked for RDS of grpc, http"));
}

/// As gRPC's clients do: the listener first, then what each resource names. Routes are accepted before the clusters that
/// they name are there, and take effect after.
#[test]
fn a_cluster_asked_for_by_name_stays_until_it_is_asked_for_no_more() {
    use ResourceType::{Cluster, Endpoints, Listener, Route};
    let grpc = |targets: &[&str]| {
        let kind = DataPlaneKind::Grpc;
        snapshots(targets, |_| {}).of(DataPlane { kind, scope: None })
    };
    let mut client = Envoy::default();
    client.offer(&grpc(&["e1"]));
    client.ask(Listener, &["default"]);
    client.take();
    client.ask(Route, &["baseline"]);
    client.take();
    client.ask(Cluster, &["default:80", "e1:80"]);
    client.ask(Endpoints, &["default:80", "e1:80"]);
    assert_eq!(client.take(), ["CDS default:80 e1:80", "EDS"]);
    assert_eq!(client.stream.standing(), Standing::InForce);

    client.offer(&grpc(&["e2"]));
    assert_eq!(client.take(), ["RDS"], "e1 isn't given up although nothing names it");
    client.ask(Cluster, &["default:80", "e1:80", "e2:80"]);
    assert_eq!(client.take(), ["CDS default:80 e1:80 e2:80"]);
    client.ask(Endpoints, &["default:80", "e1:80", "e2:80"]);
    client.ask(Cluster, &["default:80", "e2:80"]);
    client.ask(Endpoints, &["default:80", "e2:80"]);
    client.take();
    assert_eq!(client.stream.standing(), Standing::InForce);
    client.offer(&grpc(&["e3"]));
    client.ask(Cluster, &["default:80", "e2:80", "e1:80"]);
    assert_eq!(client.take(), ["RDS", "CDS default:80 e2:80"], "e1 is gone");
}
