//! What proxies get: resources, encoded once for all of them, and sets of them.

use std::fmt;
use std::hash::Hasher as _;
use std::sync::Arc;

use bytes::Bytes;
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::Secret;
use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use prost::encoding::{WireType, encode_key, encode_varint, string};
use prost::{Message, Name};
use twox_hash::XxHash64;

use super::encoded::Encoded;

/// The types of resources, in the order they are pushed: what is named comes before what names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceType {
    /// CDS.
    Cluster,
    /// EDS.
    Endpoints,
    /// LDS.
    Listener,
    /// SDS: the certificate that clients see.
    Secret,
    /// RDS.
    Route,
    /// ECDS: the filter with its table.
    FilterConfig,
}

/// One resource, encoded once for all proxies.
#[derive(Clone)]
pub struct Resource {
    /// Its name, unique in its type.
    pub name: Arc<str>,
    /// A hash of its content.
    pub hash: u64,
    /// Whether Envoy asks for endpoints of this name when it has got this resource.
    pub has_endpoints: bool,
    /// An encoded `envoy.service.discovery.v3.Resource`, in parts.
    parts: [Bytes; 3],
    /// Where the `Any` begins in the first part. It is the last field.
    any: usize,
}

/// Resources of one type, by name. A clone costs nothing and shares everything; a changed clone shares what didn't change.
#[derive(Clone, Default)]
pub struct ResourceSet {
    resources: OrdMap<Arc<str>, Arc<Resource>>,
    hash: u64,
}

impl ResourceType {
    /// All types, in the order they are pushed.
    pub const ALL: [Self; 6] = [
        Self::Cluster,
        Self::Endpoints,
        Self::Listener,
        Self::Secret,
        Self::Route,
        Self::FilterConfig,
    ];

    /// The type URL of the resources.
    pub fn type_url(self) -> String {
        match self {
            Self::Cluster => Cluster::type_url(),
            Self::Endpoints => ClusterLoadAssignment::type_url(),
            Self::Listener => Listener::type_url(),
            Self::Secret => Secret::type_url(),
            Self::Route => RouteConfiguration::type_url(),
            Self::FilterConfig => TypedExtensionConfig::type_url(),
        }
    }

    /// The type with this type URL, if it is one of ours.
    pub fn from_type_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == url)
    }
}

impl fmt::Display for ResourceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cluster => "CDS",
            Self::Endpoints => "EDS",
            Self::Listener => "LDS",
            Self::Secret => "SDS",
            Self::Route => "RDS",
            Self::FilterConfig => "ECDS",
        })
    }
}

impl Resource {
    /// Something that a proxy has and nobody here knows but by its name and version.
    pub(crate) fn unknown(name: &str, version: &str) -> Self {
        Self {
            name: name.into(),
            // One that isn't from an agent like this differs from everything.
            hash: u64::from_str_radix(version, 16).unwrap_or_default(),
            has_endpoints: false,
            parts: Default::default(),
            any: 0,
        }
    }

    /// Whether it is of that kind: there is nothing to send.
    pub(crate) fn is_unknown(&self) -> bool {
        self.parts.iter().all(Bytes::is_empty)
    }

    pub(crate) fn new<M: Message + Name>(name: &str, message: &M) -> Self {
        Self::encoded::<M>(name, Encoded::message(message))
    }

    /// One with an encoded message of type `M`.
    pub(super) fn encoded<M: Name>(name: &str, message: Encoded) -> Self {
        let mut hasher = XxHash64::default();
        message.parts().into_iter().for_each(|part| hasher.write(part));
        let hash = hasher.finish();
        let any = message.into_any(M::type_url());
        // Of `envoy.service.discovery.v3.Resource`; the fields of a message may come in any order.
        const VERSION: u32 = 1;
        const RESOURCE: u32 = 2;
        const NAME: u32 = 3;
        let mut head = Vec::with_capacity(any.before.len() + name.len() + 64);
        string::encode(NAME, &name.to_owned(), &mut head);
        string::encode(VERSION, &version(hash), &mut head);
        encode_key(RESOURCE, WireType::LengthDelimited, &mut head);
        encode_varint(any.len() as u64, &mut head);
        let start = head.len();
        let Encoded {
            before,
            shared,
            mut after,
        } = any;
        head.extend_from_slice(&before);
        if shared.is_empty() {
            head.append(&mut after);
        }
        Self {
            name: name.into(),
            hash,
            has_endpoints: false,
            parts: [head.into(), shared, after.into()],
            any: start,
        }
    }

    /// The hash of its content, as 16 hexadecimal digits.
    pub fn version(&self) -> String {
        version(self.hash)
    }

    /// It with its name and version, as delta responses have it: an encoded `envoy.service.discovery.v3.Resource`, in
    /// parts.
    pub fn whole(&self) -> [Bytes; 3] {
        self.parts.clone()
    }

    /// It alone, as responses of the state of the world have it: an encoded `Any`. It shares the bytes.
    pub fn any(&self) -> [Bytes; 3] {
        let [head, shared, tail] = self.parts.clone();
        [head.slice(self.any..), shared, tail]
    }
}

/// A hash as a version: 16 hexadecimal digits.
pub(crate) fn version(hash: u64) -> String {
    format!("{hash:016x}")
}

impl PartialEq for Resource {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.name == other.name
    }
}

impl Eq for Resource {}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: usize = self.parts.iter().map(Bytes::len).sum();
        write!(f, "{}: {} bytes {:016x}", self.name, bytes, self.hash)
    }
}

impl ResourceSet {
    /// The hash of the content: equal sets have equal ones, in whatever order they came about.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The hash as a version.
    pub fn version(&self) -> String {
        version(self.hash)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.resources.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }

    /// The one of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<Resource>> {
        self.resources.get(name)
    }

    /// Whether there is one of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.resources.contains_key(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.values()
    }

    /// Their names, in order.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.resources.keys()
    }

    /// The names of those that are only in one of the sets, or differ. The cost is that of what isn't shared.
    pub fn changes<'s>(&'s self, other: &'s Self) -> impl Iterator<Item = &'s Arc<str>> {
        self.resources.diff(&other.resources).map(|item| match item {
            DiffItem::Add(name, _) | DiffItem::Remove(name, _) => name,
            DiffItem::Update { new: (name, _), .. } => name,
        })
    }

    /// Puts it in the place of the one of its name.
    pub fn insert(&mut self, resource: Arc<Resource>) {
        self.hash = self.hash.wrapping_add(share(&resource));
        if let Some(old) = self.resources.insert(Arc::clone(&resource.name), resource) {
            self.hash = self.hash.wrapping_sub(share(&old));
        }
    }

    /// Takes the one of this name out.
    pub fn remove(&mut self, name: &str) {
        if let Some(old) = self.resources.remove(name) {
            self.hash = self.hash.wrapping_sub(share(&old));
        }
    }
}

/// What a resource adds to the hash of a set. Sums of plain hashes of similar names could cancel each other out.
fn share(resource: &Resource) -> u64 {
    XxHash64::oneshot(resource.hash, resource.name.as_bytes())
}

impl FromIterator<Resource> for ResourceSet {
    fn from_iter<I: IntoIterator<Item = Resource>>(resources: I) -> Self {
        let mut set = Self::default();
        for resource in resources {
            set.insert(Arc::new(resource));
        }
        set
    }
}

impl PartialEq for ResourceSet {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.len() == other.len()
    }
}

impl Eq for ResourceSet {}

impl fmt::Debug for ResourceSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::service::discovery::v3 as discovery;
    use envoy_types::pb::google::protobuf::Any;

    use super::*;

    fn cluster(name: &str, alt_stat_name: &str) -> Resource {
        let message = Cluster {
            name: name.to_owned(),
            alt_stat_name: alt_stat_name.to_owned(),
            ..Default::default()
        };
        Resource::new(name, &message)
    }

    #[test]
    fn both_forms_share_their_bytes() {
        let resource = cluster("a", "x");
        let encoded = discovery::Resource::decode(&*resource.whole().concat()).unwrap();
        assert_eq!((&*encoded.name, encoded.version.clone()), ("a", resource.version()));
        let any = Any::decode(&*resource.any().concat()).unwrap();
        assert_eq!(encoded.resource.as_ref(), Some(&any));
        assert_eq!(any.type_url, ResourceType::Cluster.type_url());
        assert_eq!(Cluster::decode(&*any.value).unwrap().alt_stat_name, "x");
    }

    #[test]
    fn equal_content_has_an_equal_version_however_it_came_about() {
        let one: ResourceSet = [cluster("a", "1"), cluster("b", "2")].into_iter().collect();
        let mut other: ResourceSet = [cluster("c", ""), cluster("b", "3"), cluster("a", "1")]
            .into_iter()
            .collect();
        assert_ne!(one.version(), other.version());
        other.remove("c");
        other.remove("never there");
        other.insert(Arc::new(cluster("b", "2")));
        assert_eq!((&one, one.version()), (&other, other.version()));
        let swapped: ResourceSet = [cluster("a", "2"), cluster("b", "1")].into_iter().collect();
        assert_ne!(one.version(), swapped.version());
    }

    #[test]
    fn changes_are_what_was_added_removed_and_replaced() {
        let old: ResourceSet = (0..1000).map(|i| cluster(&format!("c{i:04}"), "")).collect();
        let mut new = old.clone();
        new.remove("c0007");
        new.insert(Arc::new(cluster("c0500", "new")));
        new.insert(Arc::new(cluster("c0501", "")));
        new.insert(Arc::new(cluster("d", "")));
        let changes: Vec<&str> = old.changes(&new).map(|name| &**name).collect();
        assert_eq!(changes, ["c0007", "c0500", "d"]);
    }
}
