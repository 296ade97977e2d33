//! The keys on disk.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::Path,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret as _, SecretBox, SecretSlice};
use serde::{Deserialize, Serialize};

/// A key to sign with.
pub(crate) struct Key {
    /// PKCS #8.
    pub(crate) private: SecretSlice<u8>,
    /// From when on it signs, in seconds since 1970.
    pub(crate) from: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    keys: Vec<StoredKey>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredKey {
    from: u64,
    /// Base64 of PKCS #8.
    private: String,
}

/// The keys of a file; none if there is no file.
pub(crate) fn read(path: &Path) -> io::Result<Vec<Key>> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        text => SecretSlice::from(text?),
    };
    let broken = |error: String| io::Error::new(io::ErrorKind::InvalidData, error);
    let stored: Stored =
        serde_json::from_slice(text.expose_secret()).map_err(|error| broken(error.to_string()))?;
    let key = |StoredKey { from, private }: StoredKey| {
        let private = SecretBox::new(Box::new(private));
        let bytes = STANDARD.decode(private.expose_secret().as_bytes());
        Ok(Key { private: bytes.map_err(|_| broken("a key is no base64".to_owned()))?.into(), from })
    };
    stored.keys.into_iter().map(key).collect()
}

/// Replaces the file at once, for this user alone.
pub(crate) fn write(path: &Path, keys: &[Key]) -> io::Result<()> {
    let key = |key: &Key| StoredKey { from: key.from, private: STANDARD.encode(key.private.expose_secret()) };
    let stored = Stored { keys: keys.iter().map(key).collect() };
    let text = SecretSlice::from(serde_json::to_vec(&stored).map_err(io::Error::other)?);
    replace(path, text.expose_secret(), 0o600)
}

/// Replaces a file at once; its folder is made, for this user alone, where it is missing.
pub(crate) fn replace(path: &Path, text: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(text)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}
