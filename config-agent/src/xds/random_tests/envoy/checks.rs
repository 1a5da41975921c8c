//! What must be true of it.

use std::collections::BTreeMap;

use super::Envoy;
use crate::render::ResourceType;
use crate::xds::response::Push;
use crate::xds::state::Variant;
use crate::xds::stream::Standing;

impl Envoy {
    /// Nothing comes twice without a reason.
    pub(super) fn check_repeats(&mut self, push: &Push) {
        if self.variant == Variant::StateOfTheWorld {
            return;
        }
        let has = self.has.entry(push.kind).or_default();
        for resource in &push.resources {
            let name = resource.name.to_string();
            if has
                .get(&name)
                .is_some_and(|(_, version)| *version == resource.version())
            {
                let repeats = self.repeats.entry((push.kind, name)).or_default();
                assert!(*repeats > 0, "{} {} comes again", push.kind, resource.name);
                *repeats -= 1;
            }
        }
    }

    pub(super) fn names_cluster(&self, name: &str) -> bool {
        let mut kinds = [ResourceType::Route, ResourceType::FilterConfig].into_iter();
        kinds.any(|kind| {
            let contents = self.has.get(&kind).into_iter().flat_map(BTreeMap::values);
            { contents }.any(|(content, _)| content.split_terminator(',').any(|named| named == name))
        })
    }

    pub(super) fn is_there(&self, name: &str) -> bool {
        let has = self
            .has
            .get(&ResourceType::Cluster)
            .is_some_and(|clusters| clusters.contains_key(name));
        has && self.warming.get(name) != Some(&true)
    }

    pub(in super::super) fn check_has_all(&self) {
        assert_eq!(self.stream.standing(), Standing::InForce);
        let resources = self.offered.resources();
        for kind in ResourceType::ALL {
            let wanted = &resources[kind as usize];
            let has = self.has.get(&kind).cloned().unwrap_or_default();
            let has: BTreeMap<_, _> = has.into_iter().map(|(name, (_, version))| (name, version)).collect();
            let wanted = wanted.iter().filter(|resource| match kind {
                ResourceType::Cluster => true,
                ResourceType::Listener | ResourceType::Route => self.has_listeners,
                _ => self
                    .names
                    .get(&kind)
                    .is_some_and(|names| names.contains(&*resource.name)),
            });
            let wanted: BTreeMap<_, _> = wanted
                .map(|resource| (resource.name.to_string(), resource.version()))
                .collect();
            assert_eq!(has, wanted, "{kind}");
        }
        assert!(self.warming.is_empty(), "{:?}", self.warming);
    }
}
