//! Tells when a file may have changed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::sleep;

/// Changes within this time are one.
const SETTLE: Duration = Duration::from_millis(100);

/// Sends a message whenever the file `path` may have changed, until the receiver is dropped.
///
/// The directories are watched, not the file: so a file that is replaced by rename (editors, `mv`) is seen, and so is
/// the swap of a symbolic link on the way to it (Kubernetes' ConfigMaps). A message comes 100 ms after the first of
/// the changes it stands for, so that a file written in several steps is read once.
///
/// # Errors
///
/// The system has no watches left, or the file's directory is gone.
pub fn watch(path: PathBuf) -> notify::Result<mpsc::Receiver<()>> {
    let (changed, mut events) = mpsc::channel(1);
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading the file is an access, which must not count as a change of it.
        if !event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
            let _ = changed.try_send(());
        }
    })?;
    let mut directories = Directories {
        watcher,
        watched: BTreeSet::new(),
    };
    directories.follow(&path)?;
    let (settled, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        while events.recv().await.is_some() {
            sleep(SETTLE).await;
            let _ = events.try_recv();
            if let Err(error) = directories.follow(&path) {
                tracing::warn!(file = %path.display(), %error, "the file can't be watched at the moment");
            }
            if settled.send(()).await.is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

struct Directories {
    watcher: RecommendedWatcher,
    watched: BTreeSet<PathBuf>,
}

impl Directories {
    /// Watches the directory of `path` and those of every link on the way to the file itself, and no others.
    fn follow(&mut self, path: &Path) -> notify::Result<()> {
        let wanted = directories(path);
        for gone in self.watched.difference(&wanted) {
            // A directory that was removed has lost its watch already.
            let _ = self.watcher.unwatch(gone);
        }
        self.watched.retain(|directory| wanted.contains(directory));
        for directory in wanted {
            // Watching again is harmless, and needed where a directory was replaced by one of its name.
            self.watcher.watch(&directory, RecursiveMode::NonRecursive)?;
            self.watched.insert(directory);
        }
        Ok(())
    }
}

fn directories(path: &Path) -> BTreeSet<PathBuf> {
    const MAX_LINKS: usize = 16;
    let parent = |path: &Path| match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let mut directories = BTreeSet::new();
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let directory = parent(&path);
        directories.insert(directory.clone());
        match std::fs::read_link(&path) {
            Ok(target) => path = directory.join(target),
            Err(_) => break,
        }
    }
    // Where a directory on the way is a link itself, as `..data` is.
    directories.extend(path.canonicalize().ok().map(|real| parent(&real)));
    directories
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use tokio::time::timeout;

    use super::*;

    async fn check(change: impl FnOnce(&Path)) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.yaml");
        fs::create_dir(directory.path().join("one")).unwrap();
        fs::create_dir(directory.path().join("two")).unwrap();
        fs::write(directory.path().join("one/config.yaml"), "1").unwrap();
        fs::write(directory.path().join("two/config.yaml"), "2").unwrap();
        symlink("one", directory.path().join("..data")).unwrap();
        symlink("..data/config.yaml", &file).unwrap();
        let mut changes = watch(file.clone()).unwrap();
        change(directory.path());
        timeout(Duration::from_secs(5), changes.recv())
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

    #[tokio::test]
    async fn reading_is_no_change() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.yaml");
        fs::write(&file, "1").unwrap();
        let mut changes = watch(file.clone()).unwrap();
        fs::read(&file).unwrap();
        assert!(timeout(Duration::from_millis(400), changes.recv()).await.is_err());
    }
}
