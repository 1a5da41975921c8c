//! Other ways to do the same, each as well as it can be done by hand.

use std::path::Path;

use serde_json::{Value, json};

use super::{address, wasm_code};
use crate::materials::Materials;
use crate::sandboxes::Sandboxes;

const BASELINE: &str = "plain-baseline";
const SANDBOX: &str = "plain-sandbox";

const HEADER_MATCH_INPUT: &str = "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput";
const CONNECTION_MANAGER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const EARLY_MUTATION: &str =
    "type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const WASM: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";
const LUA: &str = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua";

/// The clusters that they send requests to, with nothing that isn't needed.
pub(super) fn clusters(materials: &Materials) -> [Value; 2] {
    [(BASELINE, materials.baseline), (SANDBOX, materials.sandbox)].map(|(name, endpoint)| {
        json!({
            "name": name,
            "load_assignment": {
                "cluster_name": name,
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(endpoint)}}]}],
            },
        })
    })
}

/// One route for everything.
pub(super) fn plain() -> Value {
    listener(json!([all_to_the_baseline()]), &[])
}

/// A route for each sandbox, tried one after the other.
pub(super) fn header_routes(sandboxes: usize) -> Value {
    let routes = Sandboxes(sandboxes).keys().map(|key| {
        let header = json!({"name": "x-route-key", "string_match": {"exact": key}});
        json!({"match": {"prefix": "/", "headers": [header]}, "route": {"cluster": SANDBOX}})
    });
    listener(routes.chain([all_to_the_baseline()]).collect(), &[])
}

/// A map from keys to routes.
pub(super) fn matcher_tree(sandboxes: usize) -> Value {
    let to = |cluster: &str| {
        let route = json!({
            "@type": "type.googleapis.com/envoy.config.route.v3.Route",
            "match": {"prefix": "/"},
            "route": {"cluster": cluster},
        });
        json!({"action": {"name": "route", "typed_config": route}})
    };
    let map: serde_json::Map<_, _> = Sandboxes(sandboxes).keys().map(|key| (key, to(SANDBOX))).collect();
    let input = json!({"@type": HEADER_MATCH_INPUT, "header_name": "x-route-key"});
    let mut listener = listener(json!([]), &[]);
    let host = &mut listener["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]["virtual_hosts"][0];
    *host = json!({
        "name": "all",
        "domains": ["*"],
        "matcher": {
            "matcher_tree": {
                "input": {"name": "key", "typed_config": input},
                "exact_match_map": {"map": map},
            },
            "on_no_match": to(BASELINE),
        },
    });
    listener
}

/// A script that is switched on for requests with a key only, as our filter is.
pub(super) fn lua(sandboxes: usize) -> Value {
    // The rules are one text, which the script reads once: LuaJIT takes no more than 65,536 constants in a function.
    let rules = Sandboxes(sandboxes).lines();
    let script = format!("local RULES = [[\n{rules}]]\n{}", include_str!("../../table.lua"));
    switched_on_by_key(&json!({"@type": LUA, "default_source_code": {"inline_string": script}}))
}

/// The smallest module, switched on for requests with a key only.
pub(super) fn floor(module: &Path) -> Value {
    let capabilities = json!({
        "proxy_on_request_headers": {},
        "proxy_get_header_map_value": {},
        "proxy_replace_header_map_value": {},
    });
    switched_on_by_key(&json!({
        "@type": WASM,
        "config": {
            "name": "floor",
            "root_id": "floor",
            "vm_config": {
                "vm_id": "floor",
                "runtime": "envoy.wasm.runtime.v8",
                "code": wasm_code(module),
                "capability_restriction_config": {"allowed_capabilities": capabilities},
            },
        },
    }))
}

/// A filter in a chain where it is off; a route that requests with a key take switches it on, and it names the cluster.
fn switched_on_by_key(filter: &Value) -> Value {
    let present = |name: &str| json!({"name": name, "present_match": true});
    let absent = |name: &str| json!({"name": name, "present_match": true, "invert_match": true});
    let switched_on = json!({"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": {}});
    let routes = json!([
        {
            "match": {"prefix": "/", "headers": [present("x-route-key"), absent("x-route-cluster")]},
            "route": {"cluster": BASELINE},
            "typed_per_filter_config": {"filter": switched_on},
        },
        {
            "match": {"prefix": "/", "headers": [present("x-route-cluster")]},
            "route": {"cluster_header": "x-route-cluster"},
        },
        all_to_the_baseline(),
    ]);
    let filter = json!({"name": "filter", "disabled": true, "typed_config": filter});
    let mut listener = listener(routes, &[filter]);
    let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
    let headers = ["x-route-cluster"];
    manager["early_header_mutation_extensions"] = json!([{
        "name": "strip",
        "typed_config": {"@type": EARLY_MUTATION, "mutations": headers.map(|name| json!({"remove": name}))},
    }]);
    manager["route_config"]["request_headers_to_remove"] = json!(headers);
    listener
}

fn all_to_the_baseline() -> Value {
    json!({"match": {"prefix": "/"}, "route": {"cluster": BASELINE}})
}

fn listener(routes: Value, filters: &[Value]) -> Value {
    let router = json!({"name": "router", "typed_config": {"@type": ROUTER}});
    let filters: Vec<_> = filters.iter().chain([&router]).collect();
    let manager = json!({
        "@type": CONNECTION_MANAGER,
        "stat_prefix": "rival",
        "generate_request_id": false,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": filters,
    });
    json!({"filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}]})
}
