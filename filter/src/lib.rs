//! The Envoy filter: shows a request's head to the routing core and applies what it decides.
//!
//! Envoy runs this module (wasm32-unknown-unknown, proxy-wasm ABI 0.2.1) only for requests that carry a route key; see
//! ARCHITECTURE.md for the routes that see to that. One root context lives for each plugin configuration and thread;
//! streams keep the table they began with.

mod effects;
mod request;

use std::rc::Rc;

use log::{error, info};
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, BufferType, ContextType, LogLevel};
use sidetrack_routing::{InvalidTable, RouteTable, decide};

use crate::request::EnvoyHead;

#[allow(missing_docs, reason = "the macro exports a function of its own")]
mod start {
    use super::*;

    proxy_wasm::main! {{
        proxy_wasm::set_log_level(LogLevel::Info);
        proxy_wasm::set_root_context(|_| Box::new(Plugin { table: None }));
    }}
}

/// The root context: one plugin configuration on one thread.
struct Plugin {
    /// `None` until configured, and with an empty configuration: nothing is routed then.
    table: Option<Rc<RouteTable>>,
}

impl Context for Plugin {}

impl RootContext for Plugin {
    /// Refusing makes Envoy NACK the configuration and keep the one in force.
    fn on_configure(&mut self, _size: usize) -> bool {
        match configured_table() {
            Ok(Some(table)) => {
                info!("route table in force: {} rules of {} keys", table.rules(), table.keys());
                self.table = Some(Rc::new(table));
                true
            }
            Ok(None) => true,
            Err(invalid) => {
                error!("{invalid}");
                false
            }
        }
    }

    fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream {
            table: self.table.clone(),
        }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

/// None, if the configuration is empty: it is, until the agent's table comes.
fn configured_table() -> Result<Option<RouteTable>, InvalidTable> {
    let configuration = hostcalls::get_buffer(BufferType::PluginConfiguration, 0, usize::MAX)
        .map_err(|status| InvalidTable::Form(format!("Envoy doesn't hand it out: {status:?}")))?;
    let configuration = configuration.filter(|bytes| !bytes.is_empty());
    configuration.map(table_of).transpose()
}

#[cfg(feature = "json")]
fn table_of(configuration: Vec<u8>) -> Result<RouteTable, InvalidTable> {
    RouteTable::from_configuration(configuration)
}

#[cfg(not(feature = "json"))]
fn table_of(configuration: Vec<u8>) -> Result<RouteTable, InvalidTable> {
    if configuration.first() == Some(&b'{') {
        let message = "this build of the filter takes no JSON: use sidetrack_filter.wasm".to_owned();
        return Err(InvalidTable::Form(message));
    }
    RouteTable::load(configuration)
}

/// One request, with the table that was in force when it came.
struct Stream {
    table: Option<Rc<RouteTable>>,
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        if let Some(table) = &self.table {
            let head = EnvoyHead::default();
            let decision = decide(table, &head);
            effects::apply(table, &decision, &head);
        }
        Action::Continue
    }
}
