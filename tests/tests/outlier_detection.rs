//! An endpoint that fails is left out for a time, by what it answers or by what it says of its health.

use sidetrack_tests::{
    Answer, Behaviour, Client, ConfigFile, PATIENCE, Ports, Protocol, Services, Sidetrack, Stats, config_text,
    free_port, poll_until, until_served_by,
};

/// After how many failures an endpoint is left out, and how many requests are sent where it mustn't be.
const FAILURES: u64 = 5;
const MANY: usize = 40;

/// Looked at often, so that the test doesn't wait long.
const OUTLIERS: &str = "outlierDetection: {consecutive5xx: 5, interval: 200ms, baseEjectionTime: 3s}";

async fn send(ports: &Ports, key: &str, count: usize) -> Vec<Answer> {
    let mut client = Client::new(Protocol::Http1, ports.http);
    let mut answers = Vec::new();
    for _ in 0..count {
        answers.push(client.get("/", &[("x-route-key", key)]).await.unwrap());
    }
    answers
}

fn count(answers: &[Answer], served_by: &str) -> usize {
    answers.iter().filter(|answer| answer.served_by() == served_by).count()
}

/// Waits until so many endpoints of `name` are left out.
async fn until_left_out(ports: &Ports, name: &str, expected: u64) {
    let filter = format!("^cluster.{name}_80.outlier_detection.ejections_active");
    poll_until(
        PATIENCE,
        &format!("{expected} endpoints of {name} left out"),
        async || {
            let found = Stats::read(ports.admin, &filter).await.sum("ejections_active");
            (found == expected).then_some(()).ok_or_else(|| found.to_string())
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_answers_5xx_is_left_out_and_comes_back() {
    let ports = Ports::free();
    let mut services = Services::start(&["baseline", "one", "a", "b", "c", "never"]).await;
    services.configure("baseline", &["baseline"], OUTLIERS);
    services.configure("one", &["one"], OUTLIERS);
    services.configure("three", &["a", "b", "c"], OUTLIERS);
    let never = OUTLIERS.replace("consecutive5xx: 5", "consecutive5xx: 0");
    services.configure("never", &["never"], &never);
    let routing = r#"
routing:
  defaultTarget: baseline
  rules:
    - {routeKey: one, targetService: one}
    - {routeKey: one-none, targetService: one, fallback: none}
    - {routeKey: three, targetService: three}
    - {routeKey: never, targetService: never}
"#;
    let config = ConfigFile::new(&config_text(&ports, &services, routing));
    let _sidetrack = Sidetrack::up(&config.path(), &ports).await;

    let one = services.server("one");
    one.behave(Behaviour::Status(500));
    let failures = send(&ports, "one", FAILURES as usize).await;
    assert_eq!(count(&failures, "500"), failures.len(), "a 500 is the target's answer");
    until_left_out(&ports, "one", 1).await;
    let before = one.requests();
    let replaced = send(&ports, "one", MANY).await;
    let told = send(&ports, "one-none", MANY).await;
    let meanwhile = one.requests() - before;
    println!(
        "one endpoint: after {before} answers of 500 left out; then of {MANY} requests {} served by the baseline, with \
         `fallback: none` {} of {MANY} refused, {meanwhile} at the target",
        count(&replaced, "baseline"),
        count(&told, "503"),
    );
    assert_eq!(before, FAILURES);
    assert_eq!(
        (count(&replaced, "baseline"), count(&told, "503"), meanwhile),
        (MANY, MANY, 0)
    );
    for answer in told {
        assert_eq!(answer.header("x-route-error"), "no_healthy_endpoint");
    }
    one.behave(Behaviour::Echo);
    until_served_by(ports.http, "one", "one").await;

    services.server("b").behave(Behaviour::Status(500));
    let mut failed = 0;
    while failed < FAILURES as usize {
        failed += count(&send(&ports, "three", 1).await, "500");
    }
    until_left_out(&ports, "three", 1).await;
    let before = services.requests("b");
    let answers = send(&ports, "three", MANY).await;
    let (a, c) = (count(&answers, "a"), count(&answers, "c"));
    println!("three endpoints, one failing: of {MANY} requests {a} and {c} at the others");
    assert_eq!((a + c, services.requests("b")), (MANY, before));
    assert!(a > MANY / 4 && c > MANY / 4, "{a} and {c}");

    for (key, name) in [("never", "never"), ("nobody", "baseline")] {
        services.server(name).behave(Behaviour::Status(500));
        let before = services.requests(name);
        let answers = send(&ports, key, MANY).await;
        assert_eq!(count(&answers, "500"), MANY, "{key}");
        assert!(answers.iter().all(|answer| answer.header("x-route-error").is_empty()));
        assert_eq!(services.requests(name), before + MANY as u64, "{key}");
        println!("{name}: {MANY} answers of 500, and never left out");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_says_it_is_unwell_gets_no_requests() {
    const WELL: &str = "/healthz";
    const GRPC: &str = "/grpc.health.v1.Health/Check";
    const OFTEN: &str = "interval: 200ms, timeout: 5s, unhealthyThreshold: 1";
    let ports = Ports::free();
    let mut services = Services::start(&["baseline", "a", "b", "listening"]).await;
    services.start_speaking("grpc", Some(Protocol::Http2)).await;
    let dead = ([127, 0, 0, 1], free_port()).into();
    let listening = services.server("listening").address();
    let by_path = format!("healthCheck: {{path: {WELL}, {OFTEN}}}");
    services.configure("pair", &["a", "b"], &by_path);
    let by_tcp = format!("retries: {{attempts: 0}}, healthCheck: {{tcp: true, {OFTEN}}}");
    services.configure_at("half", vec![dead, listening], &by_tcp);
    services.configure(
        "grpc",
        &["grpc"],
        &format!("protocol: http2, healthCheck: {{grpc: true, {OFTEN}}}"),
    );
    let routing = r#"
routing:
  defaultTarget: baseline
  rules:
    - {routeKey: pair, targetService: pair}
    - {routeKey: pair-none, targetService: pair, fallback: none}
    - {routeKey: half, targetService: half, fallback: none}
    - {routeKey: grpc, targetService: grpc}
"#;
    services.server("a").behave_at(WELL, Behaviour::Status(503));
    services.server("grpc").behave_at(GRPC, Behaviour::Status(500));
    let config = ConfigFile::new(&config_text(&ports, &services, routing));
    let _sidetrack = Sidetrack::up(&config.path(), &ports).await;

    // Until the first answers to the questions are in, nobody is well.
    let answers = poll_until(PATIENCE, "one of two well", async || {
        let answers = send(&ports, "pair", MANY).await;
        let (at_a, at_b) = (count(&answers, "a"), count(&answers, "b"));
        assert_eq!(at_a, 0, "nobody goes where it is unwell");
        (at_b == MANY).then_some(at_b).ok_or_else(|| at_b.to_string())
    });
    println!(
        "one of two is unwell: {} of {MANY} requests at the other",
        answers.await
    );
    services.server("a").behave_at(WELL, Behaviour::Echo);
    until_served_by(ports.http, "pair", "a").await;
    for name in ["a", "b"] {
        services.server(name).behave_at(WELL, Behaviour::Status(503));
    }
    until_served_by(ports.http, "pair", "baseline").await;
    until_served_by(ports.http, "pair-none", "503").await;
    let refused = send(&ports, "pair-none", 1).await.remove(0);
    assert_eq!(refused.header("x-route-error"), "no_healthy_endpoint");
    for name in ["a", "b"] {
        services.server(name).behave_at(WELL, Behaviour::Echo);
    }
    until_served_by(ports.http, "pair", "a").await;

    // Asked by TCP, and nothing is tried twice.
    until_served_by(ports.http, "half", "listening").await;
    let filter = "^cluster.half_80.membership_healthy";
    poll_until(PATIENCE, "one of two endpoints well", async || {
        let well = Stats::read(ports.admin, filter).await.sum("membership_healthy");
        (well == 1).then_some(()).ok_or_else(|| well.to_string())
    })
    .await;
    let answers = send(&ports, "half", MANY).await;
    println!(
        "one of two doesn't listen: {} of {MANY} requests at the other",
        count(&answers, "listening")
    );
    assert_eq!(count(&answers, "listening"), MANY);

    until_served_by(ports.http, "grpc", "baseline").await;
    services.server("grpc").behave_at(GRPC, Behaviour::Echo);
    until_served_by(ports.http, "grpc", "grpc").await;
    let last = services.server("grpc").requests();
    assert!(last > 0);

    // An endpoint that is taken out of the configuration is gone, however well it is.
    services.configure("pair", &["b"], &by_path);
    config.replace(&config_text(&ports, &services, routing));
    poll_until(PATIENCE, "an endpoint that is gone gets no requests", async || {
        let at_a = count(&send(&ports, "pair", MANY).await, "a");
        (at_a == 0)
            .then_some(())
            .ok_or_else(|| format!("{at_a} of {MANY} are there"))
    })
    .await;
    // Nor does anybody ask it.
    let a = services.server("a");
    let asked = a.requests();
    let b_asked = services.requests("b");
    poll_until(PATIENCE, "ten more questions at the other", async || {
        let more = services.requests("b") - b_asked;
        (more >= 10).then_some(()).ok_or_else(|| more.to_string())
    })
    .await;
    assert_eq!(a.requests(), asked);
}
