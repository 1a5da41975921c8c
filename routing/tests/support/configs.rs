//! Configurations by chance: such as people write, and such as nobody should. A number makes one, always the same.

use serde_json::{Map, Value, json};

const KEYS: [&str; 8] = ["pr-17", "a", "b", "A", "a=b;c", "%61", "{x}", "~!@#$^&*()"];
const TARGETS: [&str; 9] = [
    "shop",
    "Shop:81",
    "a.b.svc.cluster.local",
    "10.0.0.1:80",
    "[::1]:9",
    "x:65535",
    "a-b",
    "cart",
    "z9.example:443",
];
const NAMES: [&str; 5] = ["checkout-pr-17", "a", "ä \"b\" {c}", "a@shop:80", "pr-17@shop:80#2"];
const HOSTS: [&str; 5] = ["shop.example", "*.shop.example", "SHOP.example", "10.1.2.3", "*.b.c.d"];
const PATHS: [&str; 7] = ["/", "/a", "/a/", "/api/v1", "/api/v1/x", "/%C3%A4", "/a;b=c"];
const REGEXES: [&str; 6] = ["/v[0-9]+/.*", "a|ab", "(foo|bar){2,5}[a-z]+", "", "(?i)x\\d*", "[^/]+$"];
const HEADERS: [&str; 7] = ["X-User", "x-b", "content-type", "X-C", "user-agent", "x_d", "cookie"];
const VALUES: [&str; 7] = ["1", "a b", "\u{e4}\u{2603}", "a\tb", "true", "\"q\\", "%20"];
const MEMBERS: [&str; 5] = ["k", "sd-routing-key", "a.b/c@d", "$*~", "K"];
const METHODS: [&str; 5] = ["GET", "POST", "PURGE", "M-SEARCH", "DELETE"];
const TIMES: [&str; 5] = [
    "1970-01-01T00:00:00Z",
    "2026-12-01T00:00:00Z",
    "2099-01-01T12:34:56.789Z",
    "9999-12-31T23:59:59Z",
    "2000-02-29T00:00:00Z",
];
const DURATIONS: [&str; 5] = ["1ms", "500ms", "30s", "5m", "168h"];
const FILES: [&str; 3] = ["/etc/tls.crt", "a.pem", "/x y/z"];

/// What is wrong almost everywhere, or at an edge of what is right.
const WRONG: [&str; 30] = [
    "",
    " ",
    " a",
    "a ",
    "\0",
    "\n",
    "a\r\nb: c",
    "\u{7f}",
    "\u{e4}",
    "\u{10ffff}",
    "a,b",
    "*",
    "*.",
    "*.*.x",
    ".",
    "..",
    "x:0",
    "x:65536",
    "x:",
    "http://x",
    "[::1",
    "/a/../b",
    "/a//b",
    "/a?b",
    "/a#b",
    "(",
    "(a{999}){999}",
    "host",
    ":path",
    "x-envoy-x",
];

/// The configuration of this number: whole, as in config.yaml.
pub fn config(number: u64) -> Value {
    Chance::new(number).config()
}

/// Rules of one key, which may be added to a configuration.
#[allow(
    dead_code,
    reason = "not every test that has these configurations adds rules to them"
)]
pub fn rules_of_a_key(number: u64) -> Value {
    let mut chance = Chance::new(!number);
    let key = chance.one_of(&KEYS);
    let rules = chance.list(3, |chance| {
        let mut rule = chance.rule();
        if let Value::Object(fields) = &mut rule {
            fields.insert("routeKey".to_owned(), key.clone());
        }
        rule
    });
    chance.spoilt(rules)
}

/// SplitMix64, and how much of what is made by it is spoilt.
struct Chance {
    state: u64,
    /// Of 1,000 values.
    spoilt: u64,
}

impl Chance {
    fn new(number: u64) -> Self {
        let mut chance = Self {
            state: number.wrapping_mul(0xd134_2543_de82_ef95),
            spoilt: 0,
        };
        chance.spoilt = match chance.below(10) {
            0..5 => 0,
            5..8 => 10,
            _ => 100,
        };
        chance
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True so many times in a hundred.
    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn pick<'v, T>(&mut self, values: &'v [T]) -> &'v T {
        let index = self.below(values.len() as u64);
        &values[usize::try_from(index).unwrap()]
    }

    fn one_of(&mut self, texts: &[&str]) -> Value {
        Value::from(*self.pick(texts))
    }

    /// One of these, or something else.
    fn text(&mut self, texts: &[&str]) -> Value {
        let text = self.one_of(texts);
        self.spoilt(text)
    }

    fn number(&mut self, numbers: &[u64]) -> Value {
        let number = Value::from(*self.pick(numbers));
        self.spoilt(number)
    }

    fn flag(&mut self, usually: bool) -> Value {
        self.spoilt(Value::from(usually))
    }

    /// `value`, or something else.
    fn spoilt(&mut self, value: Value) -> Value {
        if self.below(1000) >= self.spoilt {
            return value;
        }
        match self.below(16) {
            0 => Value::Null,
            1 => Value::Bool(self.percent(50)),
            2 => self
                .pick(&[
                    json!(-1),
                    json!(0),
                    json!(1.5),
                    json!(1e308),
                    json!(u64::MAX),
                    json!(4_294_967_296_u64),
                ])
                .clone(),
            3 => json!([]),
            4 => json!({}),
            5 => json!([value]),
            6 => json!({"value": value}),
            7 => {
                let length = *self.pick(&[128, 129, 256, 257, 1024, 1025, 8192, 8193]);
                let text = match value.as_str() {
                    Some(text) if !text.is_empty() => text.repeat(length / text.len() + 1),
                    _ => "a".repeat(length),
                };
                Value::from(text.chars().take(length).collect::<String>())
            }
            8 => (0..self.below(40)).fold(value, |value, _| json!([value])),
            _ => self.one_of(&WRONG),
        }
    }

    fn list(&mut self, most: u64, mut make: impl FnMut(&mut Self) -> Value) -> Value {
        (0..self.below(most + 1)).map(|_| make(self)).collect()
    }

    fn map(&mut self, most: u64, names: &[&str], mut make: impl FnMut(&mut Self) -> Value) -> Value {
        let fields = (0..self.below(most + 1)).map(|_| {
            let name = match self.text(names) {
                Value::String(name) => name,
                other => other.to_string(),
            };
            (name, make(self))
        });
        Value::Object(fields.collect())
    }

    /// An object of the fields that are there by `percent`, and sometimes of one more or one less.
    fn object(&mut self, fields: &mut dyn FnMut(&mut Self, &mut Fields)) -> Value {
        let mut made = Fields(Map::new());
        fields(self, &mut made);
        let Fields(mut map) = made;
        if self.below(1000) < self.spoilt {
            match map.keys().next().cloned() {
                Some(first) if self.percent(50) => drop(map.remove(&first)),
                _ => drop(map.insert((*self.pick(&["nmae", "", "routekey", "\u{0}"])).to_owned(), json!(1))),
            }
        }
        self.spoilt(Value::Object(map))
    }

    fn config(&mut self) -> Value {
        self.object(&mut |chance, fields| {
            fields.some(chance, 100, "routing", Self::routing);
            // Most of the time nothing but rules.
            if chance.percent(40) {
                fields.some(chance, 40, "server", Self::server);
                fields.some(chance, 40, "agent", Self::agent);
                fields.some(chance, 50, "upstream", Self::upstream);
                fields.some(chance, 60, "services", |chance| chance.map(3, &TARGETS, Self::service));
                fields.some(chance, 30, "tracing", |chance| {
                    let (otlp, sampling) = (chance.text(&TARGETS), chance.number(&[0, 10, 100]));
                    json!({"otlp": otlp, "sampling": sampling})
                });
            }
        })
    }

    fn routing(&mut self) -> Value {
        self.object(&mut |chance, fields| {
            fields.some(chance, 40, "routeKeyHeader", |chance| {
                chance.text(&["X-Route-Key", "x-k", "X-User"])
            });
            fields.some(chance, 100, "defaultTarget", |chance| match chance.percent(80) {
                true => chance.text(&TARGETS),
                false => chance.weighted(),
            });
            fields.some(chance, 20, "hosts", |chance| {
                chance.map(3, &HOSTS, |chance| chance.text(&TARGETS))
            });
            fields.some(chance, 90, "rules", |chance| chance.list(6, Self::rule));
            fields.some(chance, 50, "keySources", |chance| chance.list(4, Self::source));
            fields.some(chance, 20, "keyDialects", |chance| {
                chance.list(2, |chance| {
                    chance.text(&["signadot", "mirrord", "okteto", "bridge-to-kubernetes"])
                })
            });
            fields.some(
                chance,
                20,
                "propagate",
                |chance| json!({"baggage": chance.text(&MEMBERS)}),
            );
            fields.some(chance, 20, "debugHeader", |chance| chance.flag(true));
        })
    }

    fn source(&mut self) -> Value {
        let kinds: [(&str, &[&str]); 6] = [
            ("header", &HEADERS),
            ("baggage", &MEMBERS),
            ("tracestate", &MEMBERS),
            ("cookie", &MEMBERS),
            ("query", &MEMBERS),
            ("host", &["*.preview.example", "*.b.c.d"]),
        ];
        let (kind, names) = *self.pick(&kinds);
        let name = self.text(names);
        self.spoilt(json!({kind: name}))
    }

    fn rule(&mut self) -> Value {
        self.object(&mut |chance, fields| {
            fields.some(chance, 100, "routeKey", |chance| chance.text(&KEYS));
            match chance.percent(70) {
                true => fields.some(chance, 100, "targetService", |chance| chance.text(&TARGETS)),
                false => fields.some(chance, 100, "targets", Self::weighted),
            }
            fields.some(chance, 15, "stickyBy", |chance| match chance.below(3) {
                0 => json!({"header": chance.text(&HEADERS)}),
                1 => json!({"cookie": chance.text(&MEMBERS)}),
                _ => json!({"routeKey": chance.flag(true)}),
            });
            fields.some(chance, 20, "name", |chance| chance.text(&NAMES));
            fields.some(chance, 20, "hosts", |chance| {
                chance.list(2, |chance| chance.text(&HOSTS))
            });
            fields.some(chance, 40, "pathPrefixes", |chance| {
                chance.list(3, |chance| chance.text(&PATHS))
            });
            fields.some(chance, 25, "paths", |chance| chance.list(3, Self::path));
            fields.some(chance, 20, "methods", |chance| {
                chance.list(3, |chance| chance.text(&METHODS))
            });
            fields.some(chance, 30, "headerMatchers", |chance| {
                chance.map(3, &HEADERS, Self::matcher)
            });
            fields.some(chance, 20, "queryMatchers", |chance| {
                chance.map(3, &MEMBERS, Self::matcher)
            });
            fields.some(chance, 25, "additionalHeaders", |chance| {
                chance.map(3, &HEADERS[..4], |chance| chance.text(&VALUES))
            });
            fields.some(chance, 15, "removeHeaders", |chance| {
                chance.list(2, |chance| chance.text(&HEADERS[4..]))
            });
            fields.some(chance, 40, "fallback", |chance| chance.text(&["none", "baseline"]));
            fields.some(chance, 15, "mirror", |chance| {
                let (service, percent) = (chance.text(&TARGETS), chance.number(&[0, 1, 100]));
                json!({"service": service, "percent": percent})
            });
            fields.some(chance, 15, "expiresAt", |chance| chance.text(&TIMES));
        })
    }

    fn weighted(&mut self) -> Value {
        // Few are the same by chance.
        let first = self.below(TARGETS.len() as u64);
        let targets = (first..first + 1 + self.below(3)).map(|index| {
            let target = TARGETS[usize::try_from(index).unwrap() % TARGETS.len()];
            let (service, weight) = (self.text(&[target]), self.number(&[1, 0, 90, 1_000_000, 4_294_967_295]));
            json!({"service": service, "weight": weight})
        });
        targets.collect()
    }

    fn path(&mut self) -> Value {
        let kinds: [(&str, &[&str]); 3] = [("exact", &PATHS), ("prefix", &PATHS), ("regex", &REGEXES)];
        let (kind, texts) = *self.pick(&kinds);
        let text = self.text(texts);
        self.spoilt(json!({kind: text}))
    }

    fn matcher(&mut self) -> Value {
        let form = match self.below(8) {
            0 | 1 => return self.text(&VALUES),
            2 => json!({"regex": self.text(&REGEXES)}),
            3 => json!({"present": self.flag(true)}),
            4 => json!({"absent": self.flag(true)}),
            5 => json!({"oneOf": self.list(3, |chance| chance.text(&VALUES))}),
            _ => {
                let form = *self.pick(&["exact", "prefix", "suffix", "contains"]);
                json!({form: self.text(&VALUES)})
            }
        };
        self.spoilt(form)
    }

    fn server(&mut self) -> Value {
        self.object(&mut |chance, fields| {
            for (name, port) in [
                ("httpPort", 8080),
                ("grpcPort", 8081),
                ("metricsPort", 9090),
                ("adminPort", 9901),
            ] {
                fields.some(chance, 30, name, |chance| chance.number(&[port, port + 100]));
            }
            fields.some(chance, 30, "bindAddress", |chance| {
                chance.text(&["0.0.0.0", "::", "127.0.0.1"])
            });
            fields.some(chance, 20, "mode", |chance| {
                chance.text(&["gateway", "gateway", "sidecar"])
            });
            fields.some(chance, 20, "tls", |chance| {
                let (cert, key) = (chance.text(&FILES), chance.text(&FILES));
                json!({"cert": cert, "key": key})
            });
            fields.some(chance, 20, "drainTime", |chance| chance.text(&DURATIONS));
        })
    }

    fn agent(&mut self) -> Value {
        self.object(&mut |chance, fields| {
            fields.some(chance, 30, "apiPort", |chance| chance.number(&[9902, 9903]));
            fields.some(chance, 30, "xdsPort", |chance| chance.number(&[18_000, 18_001]));
            fields.some(chance, 30, "bindAddress", |chance| chance.text(&["127.0.0.1", "::1"]));
            fields.some(chance, 20, "stateFile", |chance| chance.text(&FILES));
            fields.some(chance, 20, "tokensFile", |chance| chance.text(&FILES));
            fields.some(chance, 30, "scopes", |chance| {
                chance.list(1, |chance| {
                    let (name, cluster) = (chance.text(&["edge"]), chance.text(&["a"]));
                    let hosts = chance.text(&HOSTS);
                    json!({"name": name, "match": {"cluster": cluster}, "hosts": [hosts]})
                })
            });
        })
    }

    fn upstream(&mut self) -> Value {
        self.object(&mut |chance, fields| chance.upstream_fields(fields))
    }

    fn upstream_fields(&mut self, fields: &mut Fields) {
        fields.some(self, 30, "protocol", |chance| chance.text(&["http1", "http2", "auto"]));
        fields.some(self, 20, "connectTimeout", |chance| chance.text(&DURATIONS));
        fields.some(self, 20, "requestTimeout", |chance| chance.text(&["30s", "0s", "1h"]));
        fields.some(self, 20, "loadBalancer", |chance| {
            chance.text(&["roundRobin", "leastRequest", "random", "ringHash", "maglev"])
        });
        fields.some(self, 20, "connectionPool", |chance| {
            let (most, idle) = (chance.number(&[1, 100]), chance.text(&DURATIONS));
            json!({"maxConnections": most, "idleTimeout": idle})
        });
        fields.some(self, 20, "retries", |chance| {
            let on = chance.list(2, |chance| chance.text(&["connect-failure", "reset", "5xx"]));
            json!({"attempts": chance.number(&[0, 1, 2]), "on": on})
        });
        fields.some(self, 20, "healthCheck", |chance| json!({"path": chance.text(&PATHS)}));
    }

    fn service(&mut self) -> Value {
        self.object(&mut |chance, fields| {
            chance.upstream_fields(fields);
            fields.some(chance, 50, "endpoints", |chance| {
                let first = chance.text(&["127.0.0.1:1", "a:2"]);
                json!([first])
            });
            fields.some(
                chance,
                20,
                "tls",
                |chance| json!({"sni": chance.text(&["shop.example"])}),
            );
        })
    }
}

/// The fields of an object that is being made.
struct Fields(Map<String, Value>);

impl Fields {
    /// The field is there so many times in a hundred.
    fn some(&mut self, chance: &mut Chance, percent: u64, name: &str, make: impl FnOnce(&mut Chance) -> Value) {
        if chance.percent(percent) {
            let value = make(chance);
            self.0.insert(name.to_owned(), value);
        }
    }
}
