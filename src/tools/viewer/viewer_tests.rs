//! The operator behind a socket, and the commands that ask it.

use std::path::{Path, PathBuf};

use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use twinspan_core::model::ServiceKey;

use super::asked::Asked;
use super::{AskError, Unsynced, answers, pages};
use crate::controllers::views::Views;
use crate::env::Env;
use crate::telemetry::server;

/// A path that no other test uses.
fn socket(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("twinspan-{name}-{}.sock", std::process::id()));
    // A test before that ended early may have left it.
    let _ = std::fs::remove_file(&path);
    path
}

/// A socket with the pages of an operator that has just started.
fn served(path: &Path) -> (Views, CancellationToken) {
    let (views, stop) = (Views::new(Env::real()), CancellationToken::new());
    let listener = UnixListener::bind(path).unwrap();
    tokio::spawn(server::serve(listener, pages(views.clone()), Env::real(), stop.clone()));
    (views, stop)
}

#[tokio::test]
async fn every_question_is_answered_as_from_the_views() {
    let path = socket("answers");
    let (views, stop) = served(&path);
    let asked = Asked::at(&path);
    let unsynced = asked.unsynced().await.unwrap();
    assert_eq!(unsynced, answers::unsynced(&views));
    assert!(unsynced.contains(&Unsynced::List("Pod".to_owned())), "{unsynced:?}");
    assert_eq!(asked.services().await.unwrap(), []);
    assert!(asked.preview(&ServiceKey::new("shop", "user")).await.unwrap().is_none());
    assert_eq!(asked.records("kitex/registry-etcd/a b\u{1b}/10.0.0.1:80").await.unwrap(), []);
    assert_eq!(asked.followed_by_names().await.unwrap(), Vec::<String>::new());
    stop.cancel();
}

#[tokio::test]
async fn an_operator_that_does_not_answer_is_told_with_the_way_out() {
    let path = socket("nobody");
    let Err(error @ AskError::Connect { .. }) = Asked::at(&path).services().await else { panic!("there is none") };
    assert!(error.to_string().contains("leave TWINSPAN_SOCKET empty"), "{error}");
    drop(UnixListener::bind(&path).unwrap());
    assert!(matches!(Asked::at(&path).services().await, Err(AskError::Connect { .. })), "a file alone is no operator");
}
