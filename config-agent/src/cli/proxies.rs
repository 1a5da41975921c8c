//! `sidetrack proxies`.

use std::io::IsTerminal as _;
use std::time::{Duration, SystemTime};

use clap::Args;
use tokio::time::{MissedTickBehavior, interval};

use super::options::ApiOptions;
use super::print::{harmless, print};
use super::serve::Stop;
use super::table;
use crate::client::{Api, ProxyEntry, ProxyList};

/// From the upper left corner.
const HOME: &str = "\x1b[H";
/// What is right of the cursor is gone.
const END_LINE: &str = "\x1b[K";
/// What is below the cursor is gone.
const END_SCREEN: &str = "\x1b[J";
/// The whole screen is empty.
const CLEAR: &str = "\x1b[2J";

#[derive(Debug, Args)]
pub(super) struct Watched {
    /// Look again every so many seconds, two if no number is given.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
        value_parser = clap::value_parser!(u64).range(1..=3600))]
    watch: Option<u64>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(options: ApiOptions, watched: Watched) -> anyhow::Result<()> {
    let api = options.client()?;
    let Some(seconds) = watched.watch else {
        return Ok(print(&look(&api, watched.json).await?)?);
    };
    let mut stop = Stop::new()?;
    tokio::select! {
        result = watch(&api, Duration::from_secs(seconds), watched.json) => result,
        () = stop.signalled() => Ok(()),
    }
}

/// Looks again and again. An agent that is away may come back: that it is away is what there is to see then.
async fn watch(api: &Api, every: Duration, json: bool) -> anyhow::Result<()> {
    let is_terminal = std::io::stdout().is_terminal() && !json;
    if is_terminal {
        print(CLEAR)?;
    }
    let mut times = interval(every);
    times.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        times.tick().await;
        let seen = look(api, json).await;
        if is_terminal {
            let text = seen.unwrap_or_else(|error| format!("sidetrack: {error:#}\n"));
            let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
            let size = size.map_or((usize::MAX, usize::MAX), |size| {
                (size.ws_row.into(), size.ws_col.into())
            });
            print(&screen(&text, size))?;
        } else {
            match seen {
                Ok(text) => print(&text)?,
                Err(error) => eprintln!("sidetrack: {error:#}"),
            }
        }
    }
}

/// What `text` is on a terminal of `rows` and `columns`, over what was there before. Lines that don't fit are cut: one that
/// went on in the next row, or scrolled, would stay behind.
fn screen(text: &str, (rows, columns): (usize, usize)) -> String {
    let lines: Vec<&str> = text.lines().collect();
    // The cursor rests in the last row.
    let room = rows.saturating_sub(1).max(1);
    let mut shown: Vec<String> = lines.iter().take(room).map(|line| (*line).to_owned()).collect();
    if lines.len() > room
        && let Some(last) = shown.last_mut()
    {
        *last = format!("… and {} more lines", lines.len() - room + 1);
    }
    let cut = |line: &String| line.chars().take(columns).collect::<String>() + END_LINE + "\n";
    format!("{HOME}{}{END_SCREEN}", shown.iter().map(cut).collect::<String>())
}

async fn look(api: &Api, json: bool) -> anyhow::Result<String> {
    let (list, text) = api.proxies().await?;
    if json {
        let value: serde_json::Value = serde_json::from_str(&text)?;
        return Ok(format!("{value:#}\n"));
    }
    Ok(overview(&list, SystemTime::now()))
}

fn overview(list: &ProxyList, now: SystemTime) -> String {
    let ready = list.proxies.iter().filter(|proxy| proxy.in_force).count();
    let mut lines = vec![format!(
        "version {}, revision {}: in force at {ready} of {} proxies",
        harmless(&list.version),
        list.revision,
        list.proxies.len()
    )];
    if !list.proxies.is_empty() {
        let rows: Vec<_> = list.proxies.iter().map(|proxy| row(proxy, now)).collect();
        let names = [
            "NODE",
            "CLUSTER",
            "DATA PLANE",
            "XDS",
            "SCOPE",
            "SINCE",
            "STATE",
            "ACCEPTED",
            "ACK",
            "PUSHES",
            "NACKS",
        ];
        lines.extend(table::lines(names, &rows));
    }
    for proxy in &list.proxies {
        let node = harmless(&proxy.node);
        if let Some(nack) = &proxy.nack {
            let message = harmless(&nack.message);
            lines.push(format!("{node} refuses {}: {message}", harmless(&nack.resources)));
        } else if let Some(reason) = &proxy.waiting_for {
            lines.push(format!("{node} {}", harmless(reason)));
        }
    }
    for (node, reason) in &list.refused {
        lines.push(format!("{} was turned away: {}", harmless(node), harmless(reason)));
    }
    lines.join("\n") + "\n"
}

fn row(proxy: &ProxyEntry, now: SystemTime) -> [String; 11] {
    let state = match (&proxy.nack, proxy.in_force) {
        (Some(_), _) => "refuses",
        (None, true) => "in force",
        (None, false) => "behind",
    };
    let or_dash = |text: &Option<String>| match text.as_deref() {
        None | Some("") => "-".to_owned(),
        Some(text) => text.to_owned(),
    };
    [
        proxy.node.clone(),
        or_dash(&proxy.cluster),
        proxy.data_plane.clone(),
        proxy.protocol.clone(),
        or_dash(&proxy.scope),
        age(&proxy.connected_at, now),
        state.to_owned(),
        or_dash(&proxy.accepted),
        proxy.ack_millis.map_or("-".to_owned(), |ack| format!("{ack:.0} ms")),
        proxy.pushes.to_string(),
        proxy.nacks.to_string(),
    ]
}

/// How long ago that is, in its largest unit.
fn age(time: &str, now: SystemTime) -> String {
    let Ok(time) = humantime::parse_rfc3339_weak(time) else {
        return "-".to_owned();
    };
    let seconds = now.duration_since(time).unwrap_or_default().as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"{"revision": 7, "version": "00ff", "proxies": [
        {"node": "edge-1", "cluster": "edge", "dataPlane": "Envoy 1.40.0", "protocol": "delta", "scope": "shop",
         "connectedAt": "2026-11-23T09:00:00Z", "sent": "00ff", "accepted": "00ff", "inForce": true, "pushes": 12,
         "acks": 12, "nacks": 0, "ackMillis": 3, "nack": null},
        {"node": "edge-2", "cluster": "", "dataPlane": "gRPC C++", "protocol": "sotw", "scope": null,
         "connectedAt": "2026-11-23T11:59:57.5Z", "sent": "00ff", "accepted": null, "inForce": false, "pushes": 1, "acks": 0,
         "nacks": 1, "ackMillis": null, "nack": {"version": "00ff", "resources": "ECDS", "message": "no\nfilter"}},
        {"node": "edge-3", "dataPlane": "Envoy 1.40.0", "protocol": "delta", "connectedAt": "2026-11-23T11:59:00Z",
         "inForce": false, "waitingFor": "hasn't asked for EDS of shop:80 yet", "pushes": 1, "nacks": 0}],
        "refused": {"old": "too old"}}"#;

    #[test]
    fn the_table_says_who_has_what() {
        let list: ProxyList = serde_json::from_str(LIST).unwrap();
        let now = humantime::parse_rfc3339("2026-11-23T12:00:00Z").unwrap();
        let expected = "\
version 00ff, revision 7: in force at 1 of 3 proxies
NODE    CLUSTER  DATA PLANE    XDS    SCOPE  SINCE  STATE     ACCEPTED  ACK   PUSHES  NACKS
edge-1  edge     Envoy 1.40.0  delta  shop   3h     in force  00ff      3 ms  12      0
edge-2  -        gRPC C++      sotw   -      2s     refuses   -         -     1       1
edge-3  -        Envoy 1.40.0  delta  -      1m     behind    -         -     1       0
edge-2 refuses ECDS: no\u{fffd}filter
edge-3 hasn't asked for EDS of shop:80 yet
old was turned away: too old
";
        assert_eq!(overview(&list, now), expected);
    }

    #[test]
    fn a_screen_is_written_over_and_never_scrolls() {
        let cases = [
            ("a\nb\n", (24, 80), "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J"),
            ("abcdef\n", (24, 3), "\x1b[Habc\x1b[K\n\x1b[J"),
            ("a\nb\nc\n", (3, 80), "\x1b[Ha\x1b[K\n… and 2 more lines\x1b[K\n\x1b[J"),
            ("a\nb\n", (0, 80), "\x1b[H… and 2 more lines\x1b[K\n\x1b[J"),
        ];
        for (text, size, expected) in cases {
            assert_eq!(screen(text, size), expected, "{text:?} {size:?}");
        }
    }
}
