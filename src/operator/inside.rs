//! The socket for commands in the pod of the operator.
//!
//! Owns its file. Refuses to know the pages behind it: the command line has them, and hands them in.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;

use axum::Router;
use tokio::net::UnixListener;

use super::OperatorError;
use crate::controllers::views::Views;

/// A socket, and the pages that are served on it.
#[derive(Debug)]
pub struct Inside {
    pub(super) listener: UnixListener,
    pub(super) pages: fn(Views) -> Router,
}

impl Inside {
    /// Listens at a path, in place of a process before that left its file there.
    ///
    /// # Errors
    /// [`OperatorError::Socket`] if the directory is not there or may not be written, or another operator listens.
    pub fn open(path: &Path, pages: fn(Views) -> Router) -> Result<Self, OperatorError> {
        let listener = bind(path).map_err(|source| OperatorError::Socket { path: path.to_owned(), source })?;
        Ok(Self { listener, pages })
    }
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    if StdStream::connect(path).is_ok() {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    // Only for the operator's own user.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}
