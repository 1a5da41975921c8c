//! Sidetrack's listeners, as `sidetrack render` prints them.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, ensure};
use saphyr::{LoadableYamlNode as _, Scalar, Yaml};
use serde_json::{Map, Value, json};
use sidetrack_tests::artifacts;

use crate::arms::{Logs, Source};
use crate::materials::Materials;
use crate::sandboxes::Sandboxes;

/// The access logs that are metrics; the other is the access log proper.
const METRICS: [&str; 3] = ["counts", "errors", "outcomes"];

/// Configurations that `sidetrack render` has printed, each once.
pub(super) struct Rendered<'m> {
    materials: &'m Materials,
    known: Vec<(usize, Source, Value)>,
}

impl<'m> Rendered<'m> {
    pub(super) fn new(materials: &'m Materials) -> Self {
        let known = Vec::new();
        Self { materials, known }
    }

    /// A whole configuration, without listeners, clusters and the admin interface.
    pub(super) fn whole(&mut self) -> anyhow::Result<Value> {
        let mut whole = self.configuration(10, Source::Header)?.clone();
        let fields = whole.as_object_mut().context("a bootstrap is no mapping")?;
        fields.remove("admin");
        fields.remove("static_resources");
        Ok(whole)
    }

    /// The listener of httpPort.
    pub(super) fn listener(&mut self, sandboxes: usize, source: Source, logs: Logs) -> anyhow::Result<Value> {
        let configuration = self.configuration(sandboxes, source)?;
        let listeners = configuration["static_resources"]["listeners"].as_array();
        let http = listeners.and_then(|all| all.iter().find(|listener| listener["name"] == "http"));
        let mut listener = http.context("there is no listener `http`")?.clone();
        let wanted = |name: &str| match METRICS.contains(&name) {
            true => logs.metrics,
            false => logs.access_log,
        };
        let access_logs = connection_manager(&mut listener)["access_log"].as_array_mut();
        let access_logs = access_logs.context("there are no access logs")?;
        access_logs.retain(|log| log["name"].as_str().is_some_and(wanted));
        Ok(listener)
    }

    /// The same with nothing that routes by key: no filter, no headers of ours, one route to the baseline.
    pub(super) fn without_routing(&mut self) -> anyhow::Result<Value> {
        let mut listener = self.listener(10, Source::Header, Logs::NONE)?;
        let manager = connection_manager(&mut listener);
        let filters = manager["http_filters"].as_array_mut().context("there are no filters")?;
        filters.retain(|filter| filter["name"] == "envoy.filters.http.router");
        let fields = manager.as_object_mut().context("no mapping")?;
        fields.remove("early_header_mutation_extensions");
        let routes = &mut manager["route_config"];
        let fields = routes.as_object_mut().context("no mapping")?;
        fields.remove("request_headers_to_remove");
        let routes = routes["virtual_hosts"][0]["routes"]
            .as_array_mut()
            .context("there are no routes")?;
        routes.truncate(1);
        routes[0]["match"] = json!({"prefix": "/"});
        Ok(listener)
    }

    /// The clusters of all that was rendered, by name.
    pub(super) fn clusters(&self) -> impl Iterator<Item = (String, Value)> {
        let clusters = self
            .known
            .iter()
            .filter_map(|(.., known)| known["static_resources"]["clusters"].as_array());
        let clusters = clusters
            .flatten()
            .map(|cluster| (cluster["name"].to_string(), cluster.clone()));
        clusters.filter(|(name, _)| !name.contains("sidetrack-admin"))
    }

    fn configuration(&mut self, sandboxes: usize, source: Source) -> anyhow::Result<&Value> {
        let known = |(size, of, _): &(usize, Source, Value)| *size == sandboxes && *of == source;
        let index = match self.known.iter().position(known) {
            Some(index) => index,
            None => {
                self.known.push((sandboxes, source, self.render(sandboxes, source)?));
                self.known.len() - 1
            }
        };
        Ok(&self.known[index].2)
    }

    fn render(&self, sandboxes: usize, source: Source) -> anyhow::Result<Value> {
        let sources = match source {
            Source::Header => json!([{"header": "X-Route-Key"}]),
            Source::HeaderOrBaggage => json!([{"header": "X-Route-Key"}, {"baggage": "sd-routing-key"}]),
        };
        let config = json!({
            "services": {
                "baseline": {"endpoints": [self.materials.baseline.to_string()]},
                "sandbox": {"endpoints": [self.materials.sandbox.to_string()]},
            },
            "routing": {
                "defaultTarget": "baseline",
                "keySources": sources,
                "rules": Sandboxes(sandboxes).rules(),
            },
        });
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("config.yaml");
        fs::write(&path, config.to_string())?;
        let mut command = Command::new(&self.materials.sidetrack);
        let release = artifacts::release(&artifacts::envoy());
        command.args(["render", "--envoy-version", &release, "-c"]).arg(&path);
        let output = command.output().with_context(|| format!("{command:?}"))?;
        ensure!(
            output.status.success(),
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        from_yaml(&String::from_utf8(output.stdout)?)
    }
}

/// The HTTP connection manager of a rendered listener.
fn connection_manager(listener: &mut Value) -> &mut Value {
    &mut listener["filter_chains"][0]["filters"][0]["typed_config"]
}

/// Envoy reads large JSON much faster than YAML, and it is easier to change.
fn from_yaml(text: &str) -> anyhow::Result<Value> {
    let documents = Yaml::load_from_str(text).context("`sidetrack render` prints no YAML")?;
    value(documents.first().context("`sidetrack render` prints nothing")?)
}

fn value(yaml: &Yaml<'_>) -> anyhow::Result<Value> {
    Ok(match yaml {
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Value(Scalar::Boolean(flag)) => (*flag).into(),
        Yaml::Value(Scalar::Integer(integer)) => (*integer).into(),
        Yaml::Value(Scalar::FloatingPoint(float)) => (**float).into(),
        Yaml::Value(Scalar::String(text)) => text.as_ref().into(),
        Yaml::Sequence(elements) => elements.iter().map(value).collect::<anyhow::Result<_>>()?,
        Yaml::Mapping(fields) => {
            let fields = fields.iter().map(|(name, field)| {
                let name = name.as_str().context("a name in YAML is no text")?;
                Ok((name.to_owned(), value(field)?))
            });
            Value::Object(fields.collect::<anyhow::Result<Map<_, _>>>()?)
        }
        other => anyhow::bail!("no plain YAML: {other:?}"),
    })
}
