//! Envoy's messages as the YAML that Envoy reads.

use anyhow::Context as _;
use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use saphyr::{Mapping, Scalar, Yaml, YamlEmitter};
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
    let message = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())?;
    let options = SerializeOptions::new().use_proto_field_name(true);
    let value = message.serialize_with_options(serde_json::value::Serializer, &options)?;
    let mut text = String::new();
    YamlEmitter::new(&mut text)
        .dump(&yaml(&value))
        .context("the configuration can't be written as YAML")?;
    let text = text.strip_prefix("---\n").unwrap_or(&text);
    Ok(format!("{text}\n"))
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
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(name, field)| (Yaml::Value(Scalar::String(name.into())), yaml(field)));
            Yaml::Mapping(fields.collect::<Mapping<'_>>())
        }
    }
}
