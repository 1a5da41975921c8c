//! A certificate in files that change.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::{Client, Identity, PATIENCE, Protocol, Trust, poll_until};

/// A certificate and its key as `tls.crt` and `tls.key` in a directory of their own.
pub struct TlsFiles {
    directory: TempDir,
}

impl TlsFiles {
    /// The files with this content.
    pub fn new(identity: &Identity) -> Self {
        let files = Self::missing();
        files.replace(identity);
        files
    }

    /// As Kubernetes mounts a secret: `tls.crt` → `..data/tls.crt`, where `..data` → a directory that an update replaces.
    pub fn mounted(identity: &Identity) -> Self {
        let files = Self::missing();
        for name in ["tls.crt", "tls.key"] {
            symlink(format!("..data/{name}"), files.path(name)).unwrap();
        }
        files.remount(identity);
        files
    }

    /// The directory without the files.
    pub fn missing() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    /// The path of this file.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, directory: &Path, identity: &Identity) {
        fs::write(directory.join("tls.crt"), &identity.cert).unwrap();
        fs::write(directory.join("tls.key"), &identity.key).unwrap();
    }

    /// Truncates both and writes them anew.
    pub fn write_in_place(&self, identity: &Identity) {
        self.write(self.directory.path(), identity);
    }

    /// Puts new files in their place, the certificate first.
    pub fn replace(&self, identity: &Identity) {
        let new = tempfile::tempdir_in(&self.directory).unwrap();
        self.write(new.path(), identity);
        for name in ["tls.crt", "tls.key"] {
            fs::rename(new.path().join(name), self.path(name)).unwrap();
        }
    }

    /// Does to mounted files what the kubelet does.
    pub fn remount(&self, identity: &Identity) {
        let old = fs::read_link(self.path("..data")).ok();
        let new = tempfile::Builder::new().prefix("..").tempdir_in(&self.directory);
        let new = new.unwrap().keep();
        self.write(&new, identity);
        symlink(new.file_name().unwrap(), self.path("..data_tmp")).unwrap();
        fs::rename(self.path("..data_tmp"), self.path("..data")).unwrap();
        if let Some(old) = old {
            fs::remove_dir_all(self.path("").join(old)).unwrap();
        }
    }

    /// `text` with these as the server's certificate.
    pub fn in_config(&self, text: &str) -> String {
        let (cert, key) = (self.path("tls.crt"), self.path("tls.key"));
        let tls = format!("server: {{tls: {{cert: {}, key: {}}}, ", cert.display(), key.display());
        text.replacen("server: {", &tls, 1)
    }
}

/// Waits until new connections are shown the certificate of `identity`.
///
/// # Panics
/// If that takes longer than [`PATIENCE`].
pub async fn until_shown(port: u16, trust: &Trust, identity: &Identity, what: &str) {
    poll_until(PATIENCE, what, async || {
        let mut client = Client::over_tls(Protocol::Http1, port, trust);
        client.connect().await.map_err(|error| format!("{error:#}"))?;
        let is_shown = client.certificate() == Some(&identity.der()[..]);
        is_shown.then_some(()).ok_or_else(|| "another is shown".to_owned())
    })
    .await;
}
