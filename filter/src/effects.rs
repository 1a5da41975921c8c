//! What a decision does to the request. The one place that writes to Envoy.

use log::error;
use proxy_wasm::hostcalls;
use proxy_wasm::types::{MapType, MetricType, Status};
use sidetrack_routing::{
    Destination, EXPLAIN_HEADER, FoundKey, MIRROR_HEADER, Reason, RequestHead, RouteDecision, RouteTable,
    STEERING_HEADER, merged_baggage, target_of,
};

use crate::request::EnvoyHead;

/// The filter state that the response header X-Route-Decision is made of.
const DECISION_STATE: &str = "sidetrack.decision";

/// The filter state that the access log and the metrics are made of: what metrics call a request that has a rule; the name
/// of the rule, where it is another; or why there is none.
const LABEL_STATE: &str = "sidetrack.path";
const RULE_STATE: &str = "sidetrack.rule";
const REASON_STATE: &str = "sidetrack.reason";

/// Counts requests whose key sources hold different keys.
const DISAGREEMENTS: &str = "sidetrack_key_disagreements_total";

/// Applies `decision` to the current request.
///
/// A header that is written makes Envoy pick the route again: by the steering header, a route to the target. Without one the
/// request goes on to the baseline, by the route that let it in.
pub(crate) fn apply<'t>(table: &'t RouteTable, decision: &RouteDecision<'t>, head: &impl RequestHead<'t>) {
    if let Err(status) = try_apply(table, decision, head) {
        error!("Envoy refused a request header: {status:?}");
    }
}

fn try_apply<'t>(
    table: &'t RouteTable,
    decision: &RouteDecision<'t>,
    head: &impl RequestHead<'t>,
) -> Result<(), Status> {
    if decision.disagreement {
        count_disagreement()?;
    }
    if table.debug_header() && head.any_value(EXPLAIN_HEADER, |value| value == b"1") {
        note_decision(decision)?;
    }
    match decision.destination {
        Destination::Target { rule, cluster, mirror } => {
            set(STEERING_HEADER, cluster.as_bytes())?;
            if let Some(mirror) = mirror {
                set(MIRROR_HEADER, mirror.as_bytes())?;
            }
            rule.removed_headers().try_for_each(remove)?;
            rule.additional_headers()
                .try_for_each(|(name, value)| set(name, value))?;
            hand_on(table, decision.key.as_ref())?;
            if let Some(label) = rule.label() {
                note(LABEL_STATE, label)?;
                note(RULE_STATE, rule.name())
            } else {
                note(LABEL_STATE, rule.name())
            }
        }
        Destination::Baseline(reason) => {
            hand_on(table, decision.key.as_ref())?;
            match reason {
                // The route that let the request in says so.
                Reason::UnknownKey => Ok(()),
                reason => note(REASON_STATE, reason.as_str()),
            }
        }
    }
}

/// Writes the key where the next hop looks for it, if it isn't there: after the rule's own effects, which may be on
/// `baggage`, too.
fn hand_on(table: &RouteTable, key: Option<&FoundKey>) -> Result<(), Status> {
    let Some(key) = key else { return Ok(()) };
    if !key.is_in_route_key_header() {
        set(table.route_key_header(), key.as_bytes())?;
    }
    if let Some(member) = table.propagated_baggage() {
        let mut lines = Vec::new();
        EnvoyHead::default().any_value("baggage", |line| {
            lines.push(line.to_vec());
            false
        });
        let mut merged = Vec::new();
        merged_baggage(lines.iter().map(Vec::as_slice), member, key.as_bytes(), &mut merged);
        if lines != [merged.as_slice()] {
            set("baggage", &merged)?;
        }
    }
    Ok(())
}

fn note_decision(decision: &RouteDecision<'_>) -> Result<(), Status> {
    let text = match decision.destination {
        Destination::Target { rule, cluster, .. } => {
            let target = target_of(cluster);
            format!("rule={}; target={target}; reason=matched", rule.name())
        }
        Destination::Baseline(reason) => format!("rule=-; target=baseline; reason={reason}"),
    };
    note(DECISION_STATE, &text)
}

fn note(state: &str, text: &str) -> Result<(), Status> {
    hostcalls::set_property(vec![state], Some(text.as_bytes()))
}

fn count_disagreement() -> Result<(), Status> {
    thread_local! {
        /// Once for each VM: Envoy keeps a new entry for each definition, even of an equal name.
        static METRIC: Result<u32, Status> = hostcalls::define_metric(MetricType::Counter, DISAGREEMENTS);
    }
    METRIC.with(|metric| hostcalls::increment_metric((*metric)?, 1))
}

fn set(name: &str, value: &[u8]) -> Result<(), Status> {
    hostcalls::set_map_value_bytes(MapType::HttpRequestHeaders, name, Some(value))
}

fn remove(name: &str) -> Result<(), Status> {
    hostcalls::set_map_value_bytes(MapType::HttpRequestHeaders, name, None)
}
