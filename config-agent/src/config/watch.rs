//! Tells when a file may have changed.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::sleep;

/// Changes within this time are one.
const SETTLE: Duration = Duration::from_millis(100);

/// How often the file is looked at where it can't be watched.
const LOOK: Duration = Duration::from_secs(1);

/// How often it is looked at beside the watches. Each look wakes up a processor twice.
const LOOK_BESIDE_WATCHES: Duration = Duration::from_secs(10);

/// Sends a message whenever the file `path` may have changed, until the receiver is dropped.
///
/// The directories are watched, not the file: so a file that is replaced by rename (editors, `mv`) is seen, and so is
/// the swap of a symbolic link on the way to it (Kubernetes' ConfigMaps). A message comes 100 ms after the first of
/// the changes it stands for, so that a file written in several steps is read once.
///
/// What no watch tells is seen by looking: within 10 s if a directory further up was renamed or another machine has written the
/// file, within a second if its directory is gone or the system has no watches left.
pub fn watch(path: PathBuf) -> mpsc::Receiver<()> {
    let (changed, mut events) = mpsc::channel(1);
    let mut directories = Directories::new(&path, changed.clone());
    let mut look = directories.follow(&path);
    let (settled, receiver) = mpsc::channel(1);
    let mut seen = Seen::of(&path);
    tokio::spawn(async move {
        // Without a watcher nobody else sends, and then there just are no events.
        let _changed = changed;
        loop {
            tokio::select! {
                _ = events.recv() => {}
                () = settled.closed() => return,
                () = sleep(look) => if Seen::of(&path) == seen { continue },
            }
            sleep(SETTLE).await;
            let _ = events.try_recv();
            seen = Seen::of(&path);
            look = directories.follow(&path);
            if settled.send(()).await.is_err() {
                return;
            }
        }
    });
    receiver
}

/// What tells one writing of a file from another, links followed.
#[derive(PartialEq, Eq)]
struct Seen {
    device: u64,
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl Seen {
    /// Nothing, if it isn't there.
    fn of(path: &Path) -> Option<Self> {
        let file = fs::metadata(path).ok()?;
        Some(Self {
            device: file.dev(),
            inode: file.ino(),
            bytes: file.size(),
            changed: (file.ctime(), file.ctime_nsec()),
        })
    }
}

struct Directories {
    /// None, if the system has none left.
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
    way: Arc<Mutex<Way>>,
}

impl Directories {
    /// Watches nothing yet.
    fn new(path: &Path, changed: mpsc::Sender<()>) -> Self {
        let way = Arc::new(Mutex::new(Way::to(path)));
        let relevant = Arc::clone(&way);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            let concerns = |event: Event| relevant.lock().unwrap_or_else(PoisonError::into_inner).concerns(&event);
            if event.is_ok_and(concerns) {
                let _ = changed.try_send(());
            }
        });
        Self {
            watcher: watcher.map_err(|error| unwatched(path, &error)).ok(),
            watched: BTreeSet::new(),
            way,
        }
    }

    /// Watches the directory of `path` and those of every link on the way to the file itself, and no others. Says how often
    /// the file is to be looked at besides.
    fn follow(&mut self, path: &Path) -> Duration {
        match self.try_follow(path) {
            Ok(true) => LOOK_BESIDE_WATCHES,
            Ok(false) => LOOK,
            Err(error) => {
                unwatched(path, &error);
                LOOK
            }
        }
    }

    /// Whether there is anything to watch with.
    fn try_follow(&mut self, path: &Path) -> notify::Result<bool> {
        let Some(watcher) = &mut self.watcher else {
            return Ok(false);
        };
        let way = Way::to(path);
        let wanted = way.directories.clone();
        *self.way.lock().unwrap_or_else(PoisonError::into_inner) = way;
        for gone in self.watched.difference(&wanted) {
            // A directory that was removed has lost its watch already.
            let _ = watcher.unwatch(gone);
        }
        self.watched.retain(|directory| wanted.contains(directory));
        for directory in wanted {
            // Watching again is harmless, and needed where a directory was replaced by one of its name.
            watcher.watch(&directory, RecursiveMode::NonRecursive)?;
            self.watched.insert(directory);
        }
        Ok(true)
    }
}

fn unwatched(path: &Path, error: &notify::Error) {
    let file = path.display();
    tracing::warn!(%file, %error, "the file can't be watched, it is looked at every second");
}

/// What is on the way to a file.
struct Way {
    /// Itself, and every link that leads to it or to a directory it is in.
    files: BTreeSet<PathBuf>,
    /// The directories that these are in.
    directories: BTreeSet<PathBuf>,
}

impl Way {
    fn to(path: &Path) -> Self {
        const MAX_LINKS: usize = 16;
        let mut files = BTreeSet::new();
        let mut next = path.to_owned();
        for _ in 0..MAX_LINKS {
            // As it is named in events.
            next = directory(&next).join(next.file_name().unwrap_or_default());
            files.insert(next.clone());
            // A directory further up that is a link, such as that of the release in use.
            let links = next.ancestors().skip(1).filter(|above| above.is_symlink());
            files.extend(links.map(Path::to_owned));
            match fs::read_link(&next) {
                Ok(target) => next = directory(&next).join(target),
                Err(_) => break,
            }
        }
        // Where a directory on the way is a link itself, as `..data` is.
        files.extend(next.canonicalize());
        let directories = files.iter().map(|file| directory(file)).collect();
        Self { files, directories }
    }

    /// Whether something on the way may have changed. Reading it is an access, which is no change; and other files may be
    /// written there all the time, such as the state of the API.
    fn concerns(&self, event: &Event) -> bool {
        let is_on_it = |path: &PathBuf| self.files.contains(path) || self.directories.contains(path);
        !matches!(event.kind, EventKind::Access(_))
            && (event.need_rescan() || event.paths.is_empty() || event.paths.iter().any(is_on_it))
    }
}

fn directory(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    async fn check(change: impl FnOnce(&Path)) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.yaml");
        fs::create_dir(directory.path().join("one")).unwrap();
        fs::create_dir(directory.path().join("two")).unwrap();
        fs::write(directory.path().join("one/config.yaml"), "1").unwrap();
        fs::write(directory.path().join("two/config.yaml"), "2").unwrap();
        symlink("one", directory.path().join("..data")).unwrap();
        symlink("..data/config.yaml", &file).unwrap();
        let mut changes = watch(file.clone());
        change(directory.path());
        timeout(PATIENCE, changes.recv())
            .await
            .expect("the change is seen")
            .unwrap();
    }

    #[tokio::test]
    async fn a_swapped_link_is_seen() {
        check(|directory| {
            symlink("two", directory.join("..new")).unwrap();
            fs::rename(directory.join("..new"), directory.join("..data")).unwrap();
        })
        .await;
    }

    #[tokio::test]
    async fn a_write_behind_links_is_seen() {
        check(|directory| fs::write(directory.join("one/config.yaml"), "3").unwrap()).await;
    }

    #[tokio::test]
    async fn a_replaced_file_is_seen() {
        check(|directory| {
            fs::write(directory.join("new"), "3").unwrap();
            fs::rename(directory.join("new"), directory.join("config.yaml")).unwrap();
        })
        .await;
    }

    /// Waits until a change was seen after which the file has this text.
    async fn until_it_has(changes: &mut mpsc::Receiver<()>, file: &Path, text: &str) {
        let seen = async {
            while changes.recv().await.is_some() {
                if fs::read_to_string(file).is_ok_and(|found| found == text) {
                    return;
                }
            }
        };
        timeout(PATIENCE, seen).await.expect("the change is seen");
    }

    #[tokio::test]
    async fn a_directory_that_was_gone_is_watched_again() {
        let parent = tempfile::tempdir().unwrap();
        let [directory, aside] = ["here", "aside"].map(|name| parent.path().join(name));
        let file = directory.join("config.yaml");
        fs::create_dir(&directory).unwrap();
        fs::write(&file, "1").unwrap();
        let mut changes = watch(file.clone());
        fs::rename(&directory, &aside).unwrap();
        timeout(PATIENCE, changes.recv())
            .await
            .expect("it is seen that it is gone")
            .unwrap();
        fs::create_dir(&directory).unwrap();
        fs::write(&file, "2").unwrap();
        until_it_has(&mut changes, &file, "2").await;
        fs::remove_dir_all(&directory).unwrap();
        fs::rename(&aside, &directory).unwrap();
        until_it_has(&mut changes, &file, "1").await;
    }

    #[tokio::test]
    async fn a_link_further_up_that_is_swapped_is_seen() {
        let parent = tempfile::tempdir().unwrap();
        for version in ["1", "2"] {
            let directory = parent.path().join(version).join("etc");
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("config.yaml"), version).unwrap();
        }
        let [current, new] = ["current", "new"].map(|name| parent.path().join(name));
        symlink("1", &current).unwrap();
        let file = current.join("etc/config.yaml");
        let mut changes = watch(file.clone());
        symlink("2", &new).unwrap();
        fs::rename(&new, &current).unwrap();
        until_it_has(&mut changes, &file, "2").await;
        fs::write(&file, "3").unwrap();
        until_it_has(&mut changes, &file, "3").await;
    }

    #[tokio::test]
    async fn reading_is_no_change_nor_is_what_lies_beside() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.yaml");
        fs::write(&file, "1").unwrap();
        let mut changes = watch(file.clone());
        fs::read(&file).unwrap();
        fs::write(directory.path().join("new"), "2").unwrap();
        fs::rename(
            directory.path().join("new"),
            directory.path().join("config.yaml.state.json"),
        )
        .unwrap();
        assert!(timeout(Duration::from_millis(500), changes.recv()).await.is_err());
    }
}
