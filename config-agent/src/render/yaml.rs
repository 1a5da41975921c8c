//! Envoy's messages as the YAML that Envoy reads.

use anyhow::Context as _;
use envoy_types::pb::google::protobuf::Any;
use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, ReflectMessage as _, SerializeOptions, Value as Reflected};
use saphyr::{LoadableYamlNode as _, Mapping, Scalar, Yaml, YamlEmitter};
use serde_json::Value;

/// `message` as YAML, with the field names of Envoy's documentation.
///
/// # Errors
///
/// The message holds an `Any` of a type that isn't Envoy's.
pub fn to_yaml<M: Message + Name>(message: &M) -> anyhow::Result<String> {
    let pool = DescriptorPool::decode(include_bytes!(env!("ENVOY_DESCRIPTORS")).as_slice())?;
    let descriptor = pool
        .get_message_by_name(&M::full_name())
        .context("Envoy has no such message")?;
    let mut message = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())?;
    name_empty_anys(&pool, &mut message)?;
    let options = SerializeOptions::new().use_proto_field_name(true);
    let value = message.serialize_with_options(serde_json::value::Serializer, &options)?;
    emitted(&yaml(&value))
}

/// A JSON text as YAML, its fields in their order.
///
/// # Errors
///
/// It is no JSON.
pub(crate) fn json_to_yaml(json: &str) -> anyhow::Result<String> {
    let documents = Yaml::load_from_str(json).context("no JSON")?;
    emitted(documents.first().context("no JSON: it is empty")?)
}

fn emitted(yaml: &Yaml<'_>) -> anyhow::Result<String> {
    let mut text = String::new();
    YamlEmitter::new(&mut text)
        .dump(yaml)
        .context("can't be written as YAML")?;
    let text = text.strip_prefix("---\n").unwrap_or(&text);
    Ok(format!("{text}\n"))
}

/// An `Any` without a type, as the switch of a filter is, has no JSON for prost-reflect. So it gets this type here, and
/// [`yaml`] writes it as what it is: `{}`.
const EMPTY: &str = "type.googleapis.com/google.protobuf.Empty";

fn name_empty_anys(pool: &DescriptorPool, message: &mut DynamicMessage) -> anyhow::Result<()> {
    if message.descriptor().full_name() == "google.protobuf.Any" {
        let mut any: Any = message.transcode_to()?;
        if any.type_url.is_empty() {
            any.type_url = EMPTY.to_owned();
        } else {
            let name = any.type_url.rsplit('/').next().unwrap_or_default();
            let inner = pool
                .get_message_by_name(name)
                .with_context(|| format!("Envoy has no {name}"))?;
            let mut inner = DynamicMessage::decode(inner, any.value.as_slice())?;
            name_empty_anys(pool, &mut inner)?;
            any.value = inner.encode_to_vec();
        }
        message.transcode_from(&any)?;
        return Ok(());
    }
    for (_, value) in message.fields_mut() {
        match value {
            Reflected::Message(inner) => name_empty_anys(pool, inner)?,
            Reflected::List(elements) => messages(elements.iter_mut()).try_for_each(|m| name_empty_anys(pool, m))?,
            Reflected::Map(fields) => messages(fields.values_mut()).try_for_each(|m| name_empty_anys(pool, m))?,
            _ => {}
        }
    }
    Ok(())
}

fn messages<'v>(values: impl Iterator<Item = &'v mut Reflected>) -> impl Iterator<Item = &'v mut DynamicMessage> {
    values.filter_map(|value| match value {
        Reflected::Message(message) => Some(message),
        _ => None,
    })
}

fn yaml(value: &Value) -> Yaml<'_> {
    match value {
        Value::Null => Yaml::Value(Scalar::Null),
        Value::Bool(flag) => Yaml::Value(Scalar::Boolean(*flag)),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => Yaml::Value(Scalar::Integer(integer)),
            None => Yaml::Value(Scalar::FloatingPoint(number.as_f64().unwrap_or_default().into())),
        },
        Value::String(text) => Yaml::Value(Scalar::String(text.as_str().into())),
        Value::Array(elements) => Yaml::Sequence(elements.iter().map(yaml).collect()),
        Value::Object(fields) if fields.get("@type").is_some_and(|url| url == EMPTY) => Yaml::Mapping(Mapping::new()),
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(name, field)| (Yaml::Value(Scalar::String(name.into())), yaml(field)));
            Yaml::Mapping(fields.collect::<Mapping<'_>>())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config;
    use crate::render::{EnvoyNode, EnvoyVersion, FilterCode, static_bootstrap};

    use super::*;

    #[test]
    fn json_keeps_its_meaning_and_order_as_yaml() {
        let json = r#"[{"routeKey":"0x17","z":"yes","a":"null","m":"a: b #c","t":"- x","n":1.5,"b":true,"e":"","l":[],"o":{},
            "c":"~","d":"2026-01-01","q":"'\"\\\n\t","u":"é☃","h":"*a","k":"&a","w":"1e3","s":" x ","p":"%a","x":"|"}]"#;
        let text = super::json_to_yaml(json).unwrap();
        let read = config::yaml::parse(&text).ok().unwrap().value;
        assert_eq!(read, serde_json::from_str::<serde_json::Value>(json).unwrap(), "{text}");
        let (key, last) = (text.find("routeKey").unwrap(), text.find("z:").unwrap());
        assert!(key < last, "{text}");
    }

    #[test]
    fn the_explained_bootstrap_is_what_the_command_prints() {
        let directory = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../envoy-config"));
        let demo = config::load(&directory.join("demo.yaml"), config::Reading::default())
            .unwrap()
            .config;
        let code = FilterCode::file("/etc/sidetrack/sidetrack_filter.wasm".into());
        let rendered = to_yaml(&static_bootstrap(
            &demo,
            &EnvoyNode::new("sidetrack"),
            &code,
            EnvoyVersion::NEWEST,
        ))
        .unwrap();
        let explained = std::fs::read_to_string(directory.join("bootstrap.yaml")).unwrap();
        let value = |text: &str| config::yaml::parse(text).ok().unwrap().value;
        let (rendered, explained) = (value(&rendered), value(&explained));
        assert!(
            rendered == explained,
            "envoy-config/bootstrap.yaml isn't what is rendered:\n{rendered:#}"
        );
    }
}
