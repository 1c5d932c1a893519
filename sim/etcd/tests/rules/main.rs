//! The rules of etcd, asked of the fake one through etcd-client.

#![allow(clippy::expect_used)]

mod auth;
mod kv;
mod lease;
mod members;
mod promises;
mod restore;
mod twice;
mod watch;

use std::time::Duration;

use etcd_client::{Channel, Client, ConnectOptions, Error};
use sim_etcd::{AUTHOR_HEADER, Etcd, Options};
use tonic::{Code, Status};
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

fn one() -> Etcd {
    Etcd::new(Options::default())
}

fn three() -> Etcd {
    Etcd::new(Options { members: 3, ..Options::default() })
}

/// A client of one member, as the operator makes its clients.
async fn client(etcd: &Etcd, member: usize) -> Client {
    connect(etcd, member, ConnectOptions::new().with_require_leader(true))
        .await
        .expect("no user, no answer to wait for")
}

async fn connect(etcd: &Etcd, member: usize, options: ConnectOptions) -> Result<Client, Error> {
    let channel = BoxCloneSyncService::new(etcd.member(member));
    Client::from_channel(Channel::Custom(channel), Some(options)).await
}

/// A client whose requests name their author.
async fn named(etcd: &Etcd, author: &'static str) -> Client {
    let name = move |mut request: http::Request<tonic::body::Body>| {
        request.headers_mut().insert(AUTHOR_HEADER, http::HeaderValue::from_static(author));
        request
    };
    let channel = BoxCloneSyncService::new(etcd.member(0).map_request(name));
    Client::from_channel(Channel::Custom(channel), None).await.expect("no user, no answer to wait for")
}

/// The code and the message of a refusal.
fn refusal<T>(answer: Result<T, Error>) -> (Code, String) {
    match answer {
        Err(Error::GRpcStatus(status)) => said(&status),
        Err(other) => (Code::Unknown, other.to_string()),
        Ok(_) => (Code::Ok, String::new()),
    }
}

fn said(status: &Status) -> (Code, String) {
    (status.code(), status.message().to_owned())
}

async fn is_silent<T>(answer: impl Future<Output = T>) -> bool {
    tokio::time::timeout(Duration::from_secs(1), answer).await.is_err()
}
