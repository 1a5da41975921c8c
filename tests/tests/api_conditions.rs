//! Who writes at the same time, and who waits.

use std::time::{Duration, Instant};

use http::header::{IF_MATCH, IF_NONE_MATCH};
use serde_json::json;
use sidetrack_tests::api_agent::said;
use sidetrack_tests::{Acks, AdsClient, AdsOptions, Api, ApiAgent, PATIENCE, Variant, poll_until};

const RULES: &str = "/api/v1/rules";
const WAIT: Option<Duration> = Some(Duration::from_secs(20));

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_keeps_an_update_from_getting_lost() {
    let mut running = ApiAgent::start().await;
    let rules = |target: &str| json!([{"targetService": target}]);
    let first = running.api.put_if("k", &rules("a"), "*").await.unwrap();
    assert_eq!(first.status, 200);
    assert_eq!(running.api.put_if("k", &rules("b"), "*").await.unwrap().status, 412);
    assert_eq!(
        running
            .api
            .put_if("other", &rules("b"), &first.etag)
            .await
            .unwrap()
            .status,
        412
    );
    let second = running.api.put_if("k", &rules("b"), &first.etag).await.unwrap();
    assert_eq!(second.status, 200);
    let lost = running.api.put_if("k", &rules("c"), &first.etag).await.unwrap();
    assert_eq!(lost.status, 412, "{lost:?}");
    let path = format!("{RULES}/k");
    let delete = running.call("DELETE", &path, &[(IF_MATCH, &first.etag)], None).await;
    assert_eq!(delete.status, 412);
    let wrong = running.call("DELETE", &path, &[(IF_MATCH, "abc")], None).await;
    assert_eq!(wrong.status, 400);
    assert!(
        said(&wrong).contains("if-match: must be * or a list of entity tags"),
        "{}",
        said(&wrong)
    );
    let unchanged = running.call("GET", &path, &[(IF_NONE_MATCH, &second.etag)], None).await;
    assert_eq!((unchanged.status, unchanged.body.len()), (304, 0));
    assert_eq!(unchanged.header("etag"), second.etag);

    // Of a hundred who have read the same, one wins; a hundred times none of the hundred's updates is lost.
    let mut total = 0;
    for _ in 0..5 {
        let current = running.api.rules_of("k").await.unwrap().unwrap();
        let writers: Vec<_> = (0..100)
            .map(|writer| {
                let (port, etag) = (running.ports.api, current.etag.clone());
                let rules = json!([{"targetService": format!("w-{total}-{writer}")}]);
                tokio::spawn(async move { Api::new(port).put_if("k", &rules, &etag).await.unwrap().status })
            })
            .collect();
        let mut won = 0;
        for writer in writers {
            match writer.await.unwrap() {
                200 => won += 1,
                status => assert_eq!(status, 412),
            }
        }
        assert_eq!(won, 1);
        total += won;
    }
    let all = running.all().await.1;
    let replaced = running.call("PUT", RULES, &[(IF_MATCH, &all)], Some(&json!([]))).await;
    assert_eq!(replaced.status, 200);
    let replaced = running.call("PUT", RULES, &[(IF_MATCH, &all)], Some(&json!([]))).await;
    assert_eq!(replaced.status, 412);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_with_the_last_ack_a_refusal_or_the_time() {
    let mut running = ApiAgent::start().await;
    let rules = |target: &str| json!([{"targetService": target}]);
    // Without a proxy there is none to wait for.
    let alone = running.api.put("k", &rules("a"), WAIT).await.unwrap();
    assert!(alone.is_in_force(), "{alone:?}");

    let slow = AdsOptions {
        acks: Acks::After(Duration::from_millis(300)),
        ..AdsOptions::of_everything("slow", Variant::Delta)
    };
    let client = AdsClient::start(running.ports.xds, slow);
    client.has_table().await;
    let began = Instant::now();
    let waited = running.api.put("k", &rules("b"), WAIT).await.unwrap();
    assert!(
        waited.is_in_force() && began.elapsed() >= Duration::from_millis(300),
        "{waited:?}"
    );

    let late = running
        .api
        .put("k", &rules("c"), Some(Duration::from_millis(100)))
        .await
        .unwrap();
    assert_eq!((late.status, &late.body["inForce"]), (202, &json!(false)), "{late:?}");
    assert_eq!(late.body["waitingFor"][0]["node"], "slow");
    assert_eq!(
        late.body["waitingFor"][0]["reason"],
        "hasn't answered the push of CDS yet"
    );
    assert_eq!(
        running.api.rules_of("k").await.unwrap().unwrap().rules[0]["targetService"],
        "c",
        "it is kept"
    );
    drop(client);

    let refusing = AdsOptions {
        acks: Acks::Refuse,
        ..AdsOptions::of_everything("refusing", Variant::Sotw)
    };
    let _client = AdsClient::start(running.ports.xds, refusing);
    poll_until(PATIENCE, "both others are gone and one is there", async || {
        let proxies = running.api.get("/api/v1/proxies").await.unwrap();
        let proxies = proxies["proxies"].as_array().unwrap().clone();
        let nacked = proxies.iter().any(|proxy| proxy["nack"].is_object());
        (proxies.len() == 1 && nacked)
            .then_some(())
            .ok_or_else(|| format!("{proxies:?}"))
    })
    .await;
    let began = Instant::now();
    let refused = running.api.delete("k", WAIT).await.unwrap();
    assert_eq!(refused.status, 202, "{refused:?}");
    assert!(began.elapsed() < Duration::from_secs(10), "a refusal isn't waited out");
    let reason = refused.body["waitingFor"][0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("refuses "), "{reason}");
    assert_eq!(running.api.rules_of("k").await.unwrap(), None, "it is kept");
}
