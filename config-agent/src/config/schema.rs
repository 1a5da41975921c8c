//! The JSON Schema of config.yaml, for editors.

use schemars::generate::SchemaSettings;
use sidetrack_routing::wire::Config;

/// The schema (draft 2020-12) of the whole file, generated from the types that read it.
pub fn schema() -> serde_json::Value {
    let schema = SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<Config>();
    let mut schema = schema.to_value();
    if let Some(fields) = schema.as_object_mut() {
        fields.insert("title".to_owned(), "Sidetrack configuration".into());
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLISHED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/config.schema.json");

    /// `SIDETRACK_UPDATE=1 cargo test -p sidetrack-config-agent schema` publishes it anew.
    #[test]
    fn the_published_schema_is_that_of_the_types() {
        let generated = format!("{:#}\n", schema());
        if std::env::var_os("SIDETRACK_UPDATE").is_some() {
            std::fs::write(PUBLISHED, &generated).unwrap();
        }
        let published = std::fs::read_to_string(PUBLISHED).unwrap_or_default();
        assert!(
            published == generated,
            "docs/config.schema.json isn't that of the types: run this with SIDETRACK_UPDATE=1"
        );
    }

    #[test]
    fn it_refuses_what_the_types_refuse() {
        let schema = schema();
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(schema["required"], serde_json::json!(["routing"]));
        assert_eq!(schema["$defs"]["Rule"]["additionalProperties"], false);
        assert_eq!(
            schema["$defs"]["ValueMatcher"]["anyOf"].as_array().map(Vec::len),
            Some(2)
        );
    }
}
