use std::os::unix::fs::{PermissionsExt as _, symlink};

use tempfile::TempDir;

use super::*;

const RULES: [&[u8]; 2] = [br#"{"routeKey":"a"},{"routeKey":"a"}"#, br#"{"routeKey":"b"}"#];

fn rules() -> [Bytes; 2] {
    RULES.map(Bytes::from_static)
}

fn write(path: &Path) -> Result<(), Unwritable> {
    StateFile::open(path).unwrap().0.write(rules().iter())
}

/// What is kept at `path`, without white space, or what is said of it.
fn kept(path: &Path) -> Result<String, String> {
    match StateFile::open(path) {
        Ok((_, rules)) => Ok(String::from_utf8(rules.unwrap_or_default().to_vec())
            .unwrap()
            .replace('\n', "")),
        Err(error) => Err(error.to_string()),
    }
}

fn a_state() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.json");
    write(&path).unwrap();
    (directory, path)
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn what_is_written_is_read_again() {
    let (_directory, path) = a_state();
    assert_eq!(
        kept(&path).unwrap(),
        r#"[{"routeKey":"a"},{"routeKey":"a"},{"routeKey":"b"}]"#
    );
    let (mut state, _) = StateFile::open(&path).unwrap();
    state.write([].iter()).unwrap();
    state.write(rules()[..1].iter()).unwrap();
    drop(state);
    assert_eq!(kept(&path).unwrap(), r#"[{"routeKey":"a"},{"routeKey":"a"}]"#);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn without_a_write_nothing_is_left_behind() {
    let directory = tempfile::tempdir().unwrap();
    let (_state, rules) = StateFile::open(&directory.path().join("state.json")).unwrap();
    assert_eq!(rules, None);
    assert_eq!(names(directory.path()), [] as [&str; 0]);
}

#[test]
fn a_file_torn_at_any_byte_is_refused_and_left_alone() {
    let (_directory, path) = a_state();
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let said = kept(&path).unwrap_err();
        assert!(
            said.contains("is torn") && said.contains("move it away"),
            "{length}: {said}"
        );
        assert_eq!(fs::read(&path).unwrap(), &whole[..length]);
    }
    // What some file systems leave where the data didn't arrive.
    for from in 1..whole.len() {
        let mut zeroed = whole.clone();
        zeroed[from..].fill(0);
        fs::write(&path, zeroed).unwrap();
        assert!(kept(&path).is_err(), "{from}");
    }
}

#[test]
fn a_damaged_byte_is_noticed() {
    let (_directory, path) = a_state();
    let whole = fs::read(&path).unwrap();
    for place in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[place] ^= 1;
        fs::write(&path, damaged).unwrap();
        assert!(kept(&path).is_err(), "{place}");
    }
}

#[test]
fn what_is_no_state_is_refused_with_what_it_is() {
    let (_directory, path) = a_state();
    let good = String::from_utf8(fs::read(&path).unwrap()).unwrap();
    for (text, expected) in [
        ("routing: {}\n", "is no state of Sidetrack's API; it is left as it is"),
        ("{}", "is no state of Sidetrack's API"),
        ("[]", "is no state of Sidetrack's API"),
        ("\u{7f}ELF", "is no state of Sidetrack's API"),
        (
            r#"{"sidetrackState":2,"rules":{}}"#,
            "has the format 2, this agent knows the format 1 only",
        ),
        (
            r#"{"sidetrackState":1,"checksum":"00","rules":[]}"#,
            "its checksum isn't that of its rules",
        ),
        (&*good.replace("\"b\"", "\"c\""), "its checksum isn't that of its rules"),
        (
            r#"{"sidetrackState":1,"checksum":"00","rules":[],"more":1}"#,
            "unknown field `more`",
        ),
    ] {
        fs::write(&path, text).unwrap();
        let said = kept(&path).unwrap_err();
        assert!(
            said.starts_with(path.to_str().unwrap()) && said.contains(expected),
            "{said}"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(kept(&path).unwrap_err().contains("is no file"));
}

#[test]
fn a_second_agent_is_kept_out() {
    let (directory, path) = a_state();
    let (first, _) = StateFile::open(&path).unwrap();
    assert!(kept(&path).unwrap_err().contains("another agent keeps its rules there"));
    drop(first);
    assert!(kept(&path).is_ok());

    // Two that start where there is no state yet: the first that writes has it.
    let path = directory.path().join("new.json");
    let (mut first, _) = StateFile::open(&path).unwrap();
    let (mut second, _) = StateFile::open(&path).unwrap();
    first.write(rules().iter()).unwrap();
    let said = second.write([].iter()).unwrap_err().to_string();
    assert!(said.contains("another agent keeps its rules there"), "{said}");
    // And what it has written isn't overwritten when it is gone.
    drop(first);
    let said = second.write([].iter()).unwrap_err().to_string();
    assert!(
        said.contains("was changed by someone else: start the agent again"),
        "{said}"
    );
}

#[test]
fn a_lock_that_was_removed_is_taken_again_before_the_next_write() {
    let (directory, path) = a_state();
    let lock = directory.path().join("state.json.lock");
    let (mut first, _) = StateFile::open(&path).unwrap();
    fs::remove_file(&lock).unwrap();
    first.write(rules().iter()).unwrap();
    assert!(kept(&path).unwrap_err().contains("another agent keeps its rules there"));
    fs::remove_file(&lock).unwrap();
    let (mut second, _) = StateFile::open(&path).unwrap();
    let said = first.write([].iter()).unwrap_err().to_string();
    assert!(said.contains("another agent keeps its rules there"), "{said}");
    second.write(rules().iter()).unwrap();
}

#[test]
fn what_others_put_there_is_never_overwritten() {
    let (_directory, path) = a_state();
    let (mut state, _) = StateFile::open(&path).unwrap();
    let backup = text_of(rules()[1..].iter());
    fs::write(&path, &backup).unwrap();
    assert!(state.write([].iter()).is_err());
    assert_eq!(fs::read(&path).unwrap(), backup);
    // Taken away it is written anew: the agent has the whole.
    fs::remove_file(&path).unwrap();
    state.write(rules().iter()).unwrap();
}

#[test]
fn what_a_killed_agent_has_left_is_no_obstacle() {
    let (directory, path) = a_state();
    for leftover in ["half a fi", ""] {
        fs::write(directory.path().join("state.json.tmp"), leftover).unwrap();
        assert!(kept(&path).is_ok());
        write(&path).unwrap();
        assert_eq!(names(directory.path()), ["state.json", "state.json.lock"]);
    }
    // A link there isn't followed.
    let victim = directory.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    symlink(&victim, directory.path().join("state.json.tmp")).unwrap();
    write(&path).unwrap();
    assert_eq!(fs::read_to_string(victim).unwrap(), "precious");
}

#[test]
fn a_link_stays_a_link() {
    let (directory, path) = a_state();
    fs::create_dir(directory.path().join("links")).unwrap();
    let link = directory.path().join("links/state.json");
    for target in ["../state.json", "../not-there-yet.json"] {
        symlink(target, &link).unwrap();
        write(&link).unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), Path::new(target));
        assert!(
            kept(&directory.path().join("links").join(target))
                .unwrap()
                .contains("\"b\"")
        );
        fs::remove_file(&link).unwrap();
    }
    assert!(kept(&path).is_ok());
    // A loop is an error, not a hang.
    symlink("state.json", &link).unwrap();
    assert!(kept(&link).unwrap_err().contains("can't be read"));
}

#[test]
fn a_directory_that_is_not_there_is_said_when_it_matters() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sub/state.json");
    let said = write(&path).unwrap_err().to_string();
    assert!(said.contains("make its directory, or set agent.stateFile"), "{said}");
    fs::create_dir(directory.path().join("sub")).unwrap();
    write(&path).unwrap();
}

#[test]
fn an_unwritable_directory_is_said_and_the_next_write_tries_again() {
    let (directory, path) = a_state();
    let (mut state, _) = StateFile::open(&path).unwrap();
    let allow = |mode| fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).unwrap();
    allow(0o500);
    // Root may write anywhere.
    if fs::write(directory.path().join("probe"), "").is_err() {
        let said = state.write([].iter()).unwrap_err().to_string();
        assert!(said.contains("let this user write its directory"), "{said}");
        drop(state);
        let (mut state, rules) = StateFile::open(&path).unwrap();
        assert!(rules.is_some());
        assert!(state.write([].iter()).is_err());
        allow(0o700);
        state.write([].iter()).unwrap();
    }
    allow(0o700);
}
