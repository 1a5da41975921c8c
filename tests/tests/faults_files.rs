//! The configuration, or the directory it is in, is taken away, emptied or swapped while requests flow: the last good one
//! stays in force, what is wrong is said, and when it is mended nobody has to start anything.

use std::fs;

use serde_json::json;
use sidetrack_tests::steady::Setting;
use sidetrack_tests::{ConfigFile, Preload, Steady, until_served_by};

/// What the configuration has when it is put back.
const MORE: &str = "    - {routeKey: more, targetService: service-b}\n";

const STILL_MORE: &str = "    - {routeKey: more, targetService: service-a}\n";

const BROKEN: &str = "    - {routeKey: more}\n";

const WHAT_IS_BROKEN: &str = "routing.rules[1]: ";

/// What was in force is in force, and the API changes it.
async fn goes_on(steady: &mut Steady) {
    steady.flow().await;
    assert_eq!(steady.served_by("more").await, "baseline");
    let (status, error) = steady.put("meanwhile", json!({"targetService": "service-b"})).await;
    assert_eq!(status, 200, "{error}");
    assert_eq!(steady.served_by("meanwhile").await, "service-b");
    assert_eq!(steady.keys().await, ["from-file", "from-api", "meanwhile"]);
}

/// The configuration is broken by `breaks` as `problem` says, then mended by `mends`.
async fn check(breaks: fn(&ConfigFile), problem: &str, mends: fn(&ConfigFile, &str)) {
    let mut steady = Steady::start(Setting::default()).await;
    breaks(&steady.file);
    steady.until_rejected(problem).await;
    goes_on(&mut steady).await;
    mends(&steady.file, &steady.text_with(MORE));
    until_served_by(steady.ports.http, "more", "service-b").await;
    steady.until_mended().await;
    assert_eq!(steady.keys().await, ["from-file", "more", "from-api", "meanwhile"]);
    steady.unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_removed_is_read_when_it_is_back() {
    let removes = |file: &ConfigFile| fs::remove_file(file.path()).unwrap();
    check(removes, "can't be read: No such file", ConfigFile::replace).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_emptied_is_read_when_it_is_filled() {
    let empties = |file: &ConfigFile| file.write_in_place("");
    check(empties, "is empty, must be a mapping", ConfigFile::write_in_place).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_in_the_place_of_the_file_is_said() {
    let replaces = |file: &ConfigFile| {
        fs::remove_file(file.path()).unwrap();
        fs::create_dir(file.path()).unwrap();
    };
    let mends = |file: &ConfigFile, text: &str| {
        fs::remove_dir(file.path()).unwrap();
        file.replace(text);
    };
    check(replaces, "can't be read: Is a directory", mends).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_leads_nowhere_is_said() {
    let mut steady = Steady::start(Setting {
        file: ConfigFile::mounted,
        ..Setting::default()
    })
    .await;
    let data = steady.file.path().with_file_name("..data");
    fs::remove_file(data).unwrap();
    steady.until_rejected("can't be read: No such file").await;
    goes_on(&mut steady).await;
    steady.file.remount(&steady.text_with(MORE));
    until_served_by(steady.ports.http, "more", "service-b").await;
    steady.until_mended().await;
    steady.unharmed().await;
}

/// As Kubernetes updates a ConfigMap: to one with a mistake, and to one without.
#[tokio::test(flavor = "multi_thread")]
async fn a_mounted_file_with_a_mistake_is_said_until_the_next() {
    let mut steady = Steady::start(Setting {
        file: ConfigFile::mounted,
        ..Setting::default()
    })
    .await;
    let good = steady.text_with("");
    steady.file.remount(&steady.text_with(BROKEN));
    steady.until_rejected(WHAT_IS_BROKEN).await;
    goes_on(&mut steady).await;
    // What was before is nothing new, but mended.
    steady.file.remount(&good);
    steady.until_mended().await;
    steady.file.remount(&steady.text_with(MORE));
    until_served_by(steady.ports.http, "more", "service-b").await;
    steady.unharmed().await;
}

/// The directory is swapped for another by two renames, between which there is none for a while.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_swapped_is_followed() {
    // The state isn't in it.
    let state = tempfile::tempdir().unwrap();
    let fields = format!("stateFile: {}, ", state.path().join("state.json").display());
    let mut steady = Steady::start(Setting {
        agent_fields: &fields,
        ..Setting::default()
    })
    .await;
    let directory = steady.file.path().parent().unwrap().to_owned();
    let shelf = tempfile::tempdir().unwrap();
    for (name, rules) in [("broken", BROKEN), ("more", MORE), ("still-more", STILL_MORE)] {
        let new = shelf.path().join(name);
        fs::create_dir(&new).unwrap();
        fs::write(new.join("config.yaml"), steady.text_with(rules)).unwrap();
    }
    let put = |name: &str| fs::rename(shelf.path().join(name), &directory).unwrap();
    let take = |name: &str| fs::rename(&directory, shelf.path().join(name)).unwrap();

    take("first");
    steady.until_rejected("can't be read: No such file").await;
    put("broken");
    steady.until_rejected(WHAT_IS_BROKEN).await;
    goes_on(&mut steady).await;
    take("broken");
    put("first");
    steady.until_mended().await;
    take("first");
    put("more");
    until_served_by(steady.ports.http, "more", "service-b").await;
    take("more");
    steady.until_rejected("can't be read: No such file").await;
    put("still-more");
    until_served_by(steady.ports.http, "more", "service-a").await;
    // The new one is watched, not the one of that name before.
    steady.file.write_in_place(&steady.text_with(MORE));
    until_served_by(steady.ports.http, "more", "service-b").await;
    steady.until_mended().await;
    steady.unharmed().await;
}

/// Kubernetes' nodes often have none left: the agent looks at the file every second then.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_watch_a_changed_file_is_seen_all_the_same() {
    let library = Preload::new("no_watches");
    let steady = Steady::start(Setting {
        agent: &|mut command| {
            library.give(&mut command);
            command
        },
        ..Setting::default()
    })
    .await;
    steady.file.replace(&steady.text_with(MORE));
    until_served_by(steady.ports.http, "more", "service-b").await;
    steady
        .until_logged("the file can't be watched, it is looked at every second")
        .await;
    steady.unharmed().await;
}
