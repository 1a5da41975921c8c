//! The part of a configuration that some proxies get.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use sidetrack_routing::{Compiler, ValidConfig, ValidRule};

/// The configuration as the proxies of one scope get it, and its compiled table.
#[derive(Debug)]
pub(super) struct View {
    config: Arc<ValidConfig>,
    table: OnceLock<Bytes>,
    /// What the table was made with. The next view takes it.
    compiler: Mutex<Option<Compiler>>,
}

/// The rules that one view has and another hasn't.
#[derive(Debug, Default)]
pub(super) struct Difference {
    pub(super) added: Vec<Arc<ValidRule>>,
    pub(super) removed: Vec<Arc<ValidRule>>,
    /// Whether the rules that are in both stand in another order.
    pub(super) is_reordered: bool,
}

impl View {
    /// What proxies of this scope get of `config`: the rules for the hosts they serve. Without a scope, all.
    pub(super) fn new(config: &Arc<ValidConfig>, scope: Option<usize>) -> Self {
        let scope = scope.and_then(|scope| config.agent.scopes.get(scope));
        let config = match scope {
            None => Arc::clone(config),
            Some(scope) => {
                let mut config = ValidConfig::clone(config);
                config.routing.rules.retain(|rule| scope.serves(rule));
                Arc::new(config)
            }
        };
        Self {
            config,
            table: OnceLock::new(),
            compiler: Mutex::default(),
        }
    }

    /// The same of `config`, which follows this one's: at the cost of what changed.
    pub(super) fn next(&self, config: &Arc<ValidConfig>, scope: Option<usize>) -> Self {
        let next = Self::new(config, scope);
        let compiler = self.compiler.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let (Some(mut compiler), Some(difference)) = (compiler, self.difference(&next))
            && !difference.is_reordered
        {
            let changed = difference.added.iter().chain(&difference.removed);
            compiler.update(&next.config.routing, changed.map(|rule| rule.route_key.as_str()));
            *next.compiler.lock().unwrap_or_else(PoisonError::into_inner) = Some(compiler);
        }
        next
    }

    pub(super) fn config(&self) -> &ValidConfig {
        &self.config
    }

    /// The compiled table, compiled when the first asks.
    pub(super) fn table(&self) -> &Bytes {
        self.table.get_or_init(|| {
            let mut compiler = self.compiler.lock().unwrap_or_else(PoisonError::into_inner);
            let routing = &self.config.routing;
            compiler
                .get_or_insert_with(|| Compiler::new(routing))
                .table(routing)
                .into()
        })
    }

    /// How the rules of `next` differ from those of this view, if nothing else does.
    pub(super) fn difference(&self, next: &Self) -> Option<Difference> {
        if !self.config.equals_but_for_rules(&next.config) {
            return None;
        }
        let (old, new) = (&*self.config.routing.rules, &*next.config.routing.rules);
        let is_same = |(one, other): &(&Arc<ValidRule>, &Arc<ValidRule>)| Arc::ptr_eq(one, other);
        let before = old.iter().zip(new).take_while(is_same).count();
        let (old, new) = (old.get(before..)?, new.get(before..)?);
        let after = old.iter().rev().zip(new.iter().rev()).take_while(is_same).count();
        let (old, new) = (old.get(..old.len() - after)?, new.get(..new.len() - after)?);
        let addresses = |rules: &[Arc<ValidRule>]| rules.iter().map(Arc::as_ptr).collect::<HashSet<_>>();
        let (in_old, in_new) = (addresses(old), addresses(new));
        let without = |rules: &[Arc<ValidRule>], others: &HashSet<*const ValidRule>| {
            let left = rules.iter().filter(|rule| !others.contains(&Arc::as_ptr(rule)));
            left.cloned().collect::<Vec<_>>()
        };
        let stayed = |rules: &[Arc<ValidRule>], others: &HashSet<*const ValidRule>| {
            let both = rules.iter().map(Arc::as_ptr).filter(|rule| others.contains(rule));
            both.collect::<Vec<_>>()
        };
        Some(Difference {
            added: without(new, &in_old),
            removed: without(old, &in_new),
            is_reordered: stayed(old, &in_new) != stayed(new, &in_old),
        })
    }
}

impl Difference {
    pub(super) fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && !self.is_reordered
    }
}
