//! The file that keeps the API's rules can't be written, or isn't what it was: a change is refused whole, what is in force
//! stays, and the first change after that was mended is made.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::process::{Resource, Rlimit, prlimit};
use serde_json::json;
use sidetrack_tests::disk::{SmallDisk, bound_by_permissions};
use sidetrack_tests::steady::Setting;
use sidetrack_tests::{ConfigFile, PATIENCE, Ports, Process, Steady, config_with, figure, sidetrack};

const FAILING: &str = "sidetrack_agent_state_write_failing";
const FAILURES: &str = "sidetrack_agent_state_write_failures_total";

fn state_file(path: &Path) -> String {
    format!("stateFile: {}, ", path.display())
}

/// A change is refused because of `problem` with what is to be done, and nothing of it is seen anywhere.
async fn is_refused(steady: &mut Steady, problem: &str) {
    let before = (steady.keys().await, steady.readiness("version").await);
    let failures = steady.metric(FAILURES).await;
    let refused = [
        steady.put("refused", json!({"targetService": "service-b"})).await,
        steady.put("from-api", json!({"targetService": "service-a"})).await,
    ];
    for (status, error) in refused {
        assert_eq!(status, 507, "{error}");
        assert!(error.contains(problem), "{error}");
    }
    steady.flow().await;
    assert_eq!(steady.served_by("refused").await, "baseline");
    assert_eq!((steady.keys().await, steady.readiness("version").await), before);
    assert_eq!(steady.readiness("ready").await, true);
    let unkept = steady.readiness("unkept").await;
    assert!(
        unkept.as_str().is_some_and(|unkept| unkept.contains(problem)),
        "{unkept}"
    );
    assert_eq!(steady.metric(FAILING).await, 1.0);
    assert_eq!(steady.metric(FAILURES).await, failures + 2.0);
    steady.until_logged(problem).await;
}

/// The next change is made, and nothing is said any more.
async fn is_mended(steady: &mut Steady, key: &str) {
    let (status, error) = steady.put(key, json!({"targetService": "service-b"})).await;
    assert_eq!(status, 200, "{error}");
    assert_eq!(steady.served_by(key).await, "service-b");
    assert!(steady.readiness("unkept").await.is_null());
    assert_eq!(steady.metric(FAILING).await, 0.0);
    steady.until_logged("can be kept again").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_changes_until_there_is_room() {
    let Some(disk) = SmallDisk::new() else {
        figure("a full disk: left out, this machine doesn't let us mount one of our own");
        return;
    };
    let mut steady = Steady::start(Setting {
        agent_fields: &state_file(&disk.path().join("state.json")),
        agent: &|command| disk.mounted_for(&command),
        ..Setting::default()
    })
    .await;
    let agent = steady.agent.pid();
    for key in ["first", "second"] {
        disk.fill(agent);
        is_refused(
            &mut steady,
            "No space left on device (os error 28): make room on its disk",
        )
        .await;
        disk.make_room(agent);
        is_mended(&mut steady, key).await;
    }
    steady.unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_on_the_size_of_files_refuses_changes_and_ends_nothing() {
    let mut steady = Steady::start(Setting::default()).await;
    let agent = steady.agent.pid();
    let limit = |bytes| {
        let limit = Rlimit {
            current: bytes,
            maximum: None,
        };
        prlimit(Some(agent), Resource::Fsize, limit).unwrap();
    };
    limit(Some(10));
    is_refused(
        &mut steady,
        "File too large (os error 27): raise the limit on the size of files",
    )
    .await;
    let half = steady.file.path().with_file_name("config.yaml.state.json.tmp");
    assert!(!half.exists(), "what was begun is removed");
    limit(None);
    is_mended(&mut steady, "mended").await;
    steady.unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_without_permission_refuses_changes_until_there_is_one() {
    let directory = tempfile::tempdir().unwrap();
    let allow = |mode| fs::set_permissions(&directory, fs::Permissions::from_mode(mode)).unwrap();
    let mut steady = Steady::start(Setting {
        agent_fields: &state_file(&directory.path().join("state.json")),
        agent: &bound_by_permissions,
        ..Setting::default()
    })
    .await;
    allow(0o500);
    is_refused(
        &mut steady,
        "Permission denied (os error 13): let this user write its directory",
    )
    .await;
    allow(0o700);
    is_mended(&mut steady, "mended").await;
    steady.unharmed().await;
}

/// What it can't write it can still read, and serves.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_without_permission_at_the_start_is_said_when_it_matters() {
    let directory = tempfile::tempdir().unwrap();
    let allow = |mode| fs::set_permissions(&directory, fs::Permissions::from_mode(mode)).unwrap();
    let setting = || Setting {
        agent: &bound_by_permissions,
        ..Setting::default()
    };
    let fields = state_file(&directory.path().join("state.json"));
    let mut steady = Steady::start(Setting {
        agent_fields: &fields,
        ..setting()
    })
    .await;
    fs::remove_file(directory.path().join("state.json.lock")).unwrap();
    allow(0o500);
    steady.restart_agent(&bound_by_permissions).await;
    assert_eq!(steady.keys().await, ["from-file", "from-api"]);
    is_refused(
        &mut steady,
        "Permission denied (os error 13): let this user write its directory",
    )
    .await;
    allow(0o700);
    is_mended(&mut steady, "mended").await;
    steady.unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_gone_refuses_changes_until_it_is_back() {
    let parent = tempfile::tempdir().unwrap();
    let [directory, aside] = ["state", "aside"].map(|name| parent.path().join(name));
    fs::create_dir(&directory).unwrap();
    let mut steady = Steady::start(Setting {
        agent_fields: &state_file(&directory.join("state.json")),
        ..Setting::default()
    })
    .await;
    fs::rename(&directory, &aside).unwrap();
    is_refused(
        &mut steady,
        "No such file or directory (os error 2): make its directory",
    )
    .await;
    // Root may write anywhere, but not below a file.
    fs::write(&directory, "").unwrap();
    is_refused(&mut steady, "Not a directory (os error 20): make its directory").await;
    fs::remove_file(&directory).unwrap();
    fs::rename(&aside, &directory).unwrap();
    is_mended(&mut steady, "back").await;
    // A new one is as good: the agent has all that was in the old one.
    fs::remove_dir_all(&directory).unwrap();
    is_refused(
        &mut steady,
        "No such file or directory (os error 2): make its directory",
    )
    .await;
    fs::create_dir(&directory).unwrap();
    is_mended(&mut steady, "new").await;
    steady.restart_agent(&|command| command).await;
    assert_eq!(steady.keys().await, ["from-file", "back", "from-api", "new"]);
    steady.unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_removed_is_written_again() {
    let mut steady = Steady::start(Setting::default()).await;
    let state = steady.file.path().with_file_name("config.yaml.state.json");
    fs::remove_file(&state).unwrap();
    steady.flow().await;
    assert_eq!(steady.keys().await, ["from-file", "from-api"]);
    let (status, error) = steady.put("next", json!({"targetService": "service-b"})).await;
    assert_eq!(status, 200, "{error}");
    steady.restart_agent(&|command| command).await;
    assert_eq!(steady.keys().await, ["from-file", "from-api", "next"]);
    steady.unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_someone_else_has_changed_is_not_overwritten() {
    let mut steady = Steady::start(Setting::default()).await;
    let state = steady.file.path().with_file_name("config.yaml.state.json");
    for foreign in ["", "precious"] {
        fs::write(&state, foreign).unwrap();
        is_refused(
            &mut steady,
            "it was changed by someone else: start the agent again to take it over, or move it away",
        )
        .await;
        assert_eq!(fs::read_to_string(&state).unwrap(), foreign);
    }
    fs::rename(&state, state.with_extension("aside")).unwrap();
    is_mended(&mut steady, "mended").await;
    steady.restart_agent(&|command| command).await;
    assert_eq!(steady.keys().await, ["from-file", "from-api", "mended"]);
    steady.unharmed().await;
}

/// Rules that can't be read might be lost by the next change, so nothing starts.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_starts_with_a_state_that_cannot_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let locked = directory.path().join("locked.json");
    fs::write(&locked, "").unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).unwrap();
    let below_a_file = locked.join("state.json");
    for (path, why) in [
        (&locked, "Permission denied (os error 13)"),
        (&below_a_file, "Not a directory (os error 20)"),
    ] {
        let routing = "routing: {defaultTarget: d}";
        let text = config_with(&Ports::free(), routing).replace("agent: {", &format!("agent: {{{}", state_file(path)));
        let file = ConfigFile::new(&text);
        let mut command = sidetrack(&["agent", "-c"]);
        command.arg(file.path());
        let mut agent = Process::spawn("sidetrack agent", &mut bound_by_permissions(command));
        assert_eq!(agent.exit(PATIENCE).await.code(), Some(1));
        let said = format!(
            "{}: can't be read: {why}; let this user read it, or set agent.stateFile",
            path.display()
        );
        assert!(agent.stderr().contains(&said), "{}", agent.output());
    }
}
