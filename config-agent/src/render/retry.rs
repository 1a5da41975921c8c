//! When a request is tried again, and where.

use std::collections::BTreeSet;

use envoy_types::pb::envoy::config::route::v3::RetryPolicy;
use envoy_types::pb::envoy::config::route::v3::retry_policy::{
    RetryHostPredicate, RetryPriority, retry_host_predicate, retry_priority,
};
use envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use envoy_types::pb::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
use sidetrack_routing::RoutePolicy;
use sidetrack_routing::wire::RetryOn;

use super::proto::{any, duration, number};

/// What the target can't have begun to work on.
const UNSEEN: [RetryOn; 3] = [
    RetryOn::ConnectFailure,
    RetryOn::RefusedStream,
    RetryOn::ResetBeforeRequest,
];

/// How often Envoy looks for an endpoint that wasn't tried yet.
const HOST_SELECTIONS: i64 = 3;

/// As the policy says, each time at another endpoint.
pub(super) fn retry_policy(policy: &RoutePolicy) -> RetryPolicy {
    let previous = PreviousHostsPredicate {};
    RetryPolicy {
        retry_on: policy.retry_on_text(),
        num_retries: number(policy.attempts),
        per_try_timeout: policy.per_try_timeout.and_then(duration),
        retry_host_predicate: vec![RetryHostPredicate {
            name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
            config_type: Some(retry_host_predicate::ConfigType::TypedConfig(any(&previous))),
        }],
        host_selection_retry_max_attempts: HOST_SELECTIONS,
        ..Default::default()
    }
}

/// The same where the last of the policy's attempts goes to the baseline, and one more in case that has a dead endpoint.
/// There is at least that one, whatever the policy says, after anything the target can't have begun to work on; of
/// requests that may be done `twice`, also after a connection that breaks in the middle.
pub(super) fn falling_back(policy: &RoutePolicy, twice: bool) -> RetryPolicy {
    let mut on: BTreeSet<RetryOn> = policy.retry_on.iter().copied().chain(UNSEEN).collect();
    if twice {
        on.insert(RetryOn::Reset);
    }
    let at_target = policy.attempts.max(1);
    let previous = PreviousPrioritiesConfig {
        update_frequency: i32::try_from(at_target).unwrap_or(i32::MAX),
    };
    let on: Vec<&str> = on.into_iter().map(RetryOn::as_str).collect();
    RetryPolicy {
        retry_on: on.join(","),
        num_retries: number(at_target + 1),
        retry_priority: Some(RetryPriority {
            name: "envoy.retry_priorities.previous_priorities".to_owned(),
            config_type: Some(retry_priority::ConfigType::TypedConfig(any(&previous))),
        }),
        ..retry_policy(policy)
    }
}
