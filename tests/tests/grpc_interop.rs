//! gRPC by the interop cases of gRPC for Go: what passes through a bare Envoy passes through us.

use std::process::Command;
use std::time::Duration;

use sidetrack_tests::suite::{self, Verdict, Verdicts};
use sidetrack_tests::{BareEnvoy, Front, PATIENCE, Process, Way, free_port, poll_until};
use tokio::net::TcpStream;

/// Those of gRPC for Go, but for `orca_oob`: only its own server can report as often as that case wants.
const CASES: [&str; 17] = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "status_code_and_message",
    "special_status_message",
    "custom_metadata",
    "unimplemented_method",
    "unimplemented_service",
    ORCA,
    "rpc_soak",
    "channel_soak",
];

/// What one case needs.
const ORCA: &str = "orca_per_rpc";
const ORCA_CONFIG: &str = r#"{"loadBalancingConfig": [{"test_backend_metrics_load_balancer": {}}]}"#;

/// The calls of that configuration itself: they don't carry the metadata that all calls are to carry.
const CALLS_WITHOUT_METADATA: u64 = 2;

/// One case on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_through_a_bare_envoy_passes_through_us() {
    let server = free_port();
    let _server = interop_server(server).await;
    let front = Front::start(server).await;
    let bare = BareEnvoy::start(server, "HTTP2").await;

    let through_bare = all_verdicts("through a bare Envoy", bare.port, None).await;
    assert!(through_bare.failed().len() <= 1, "{:?}", through_bare.failed());
    for (port_name, port) in [("grpcPort", front.ports.grpc), ("httpPort", front.ports.http)] {
        for way in Way::ALL {
            let before = front.requests().await;
            let name = format!("by {port_name}, {way:?}");
            let ours = all_verdicts(&name, port, way.key()).await;
            let (sandbox, baseline) = front.requests().await;
            let (sandbox, baseline) = (sandbox - before.0, baseline - before.1);
            let (there, elsewhere) = match way {
                Way::Routed => (sandbox, baseline),
                Way::Missed | Way::Keyless => (baseline, sandbox),
            };
            assert!(
                there >= CASES.len() as u64 && elsewhere <= CALLS_WITHOUT_METADATA,
                "{name}: {sandbox} calls at the sandbox, {baseline} at the baseline"
            );
            let again = async |cases: &[&str]| {
                (
                    verdicts(bare.port, None, cases).await,
                    verdicts(port, way.key(), cases).await,
                )
            };
            suite::assert_same(&name, through_bare.clone(), ours, again).await;
        }
    }
}

async fn all_verdicts(name: &str, port: u16, key: Option<&str>) -> Verdicts {
    let verdicts = verdicts(port, key, &CASES).await;
    verdicts.print("gRPC interop", name);
    verdicts
}

async fn verdicts(port: u16, key: Option<&str>, cases: &[&str]) -> Verdicts {
    let mut verdicts = Vec::new();
    for case in cases {
        let mut command = Command::new(suite::installed("grpc-interop", "client"));
        command.args(["-server_host", "127.0.0.1", "-server_port", &port.to_string()]);
        command.args(["-test_case", case]);
        if *case == ORCA {
            command.args(["-service_config_json", ORCA_CONFIG]);
        }
        if let Some(key) = key {
            command.args(["-additional_metadata", &format!("x-route-key:{key}")]);
        }
        let mut client = Process::spawn(case, &mut command);
        let status = client.exit(DEADLINE).await;
        verdicts.push(((*case).to_owned(), Verdict::plain(status.success())));
    }
    verdicts.into_iter().collect()
}

async fn interop_server(port: u16) -> Process {
    let mut command = Command::new(suite::installed("grpc-interop", "server"));
    let mut server = Process::spawn("interop server", command.arg(port.to_string()));
    poll_until(PATIENCE, "the interop server", async || {
        assert!(server.exited().is_none(), "the interop server has ended");
        let connection = TcpStream::connect(("127.0.0.1", port)).await;
        connection.map(drop).map_err(|error| error.to_string())
    })
    .await;
    server
}
