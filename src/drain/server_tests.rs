//! The path over real connections.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::bench::{Bench, key};
use super::requests::WAITING;
use super::serve;
use crate::env::Env;

const SOON: Duration = Duration::from_secs(20);

async fn served(bench: &Bench) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(bench.drain.clone(), listener, Env::real(), bench.stopping.clone()));
    address
}

/// The code and the body of an answer.
async fn ask(address: SocketAddr, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("{request} HTTP/1.1\r\nHost: twinspan-drain\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(SOON, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn every_answer_is_empty_and_an_unknown_name_is_like_any_other() {
    let bench = Bench::new();
    let address = served(&bench).await;
    for (request, code) in [
        ("GET /drained/shop/echo", 200),
        ("GET /drained/shop/nobody", 200),
        ("GET /drained/nowhere/echo?verbose", 200),
        ("GET /drained/%ff/%00", 200),
        ("GET /drained/shop/a%2Fb", 200),
        ("GET /drained/shop/echo/more", 404),
        ("GET /drained/shop", 404),
        ("GET /metrics", 404),
        ("GET /", 404),
        ("POST /drained/shop/echo", 405),
        ("HEAD /drained/shop/echo", 405),
        ("DELETE /drained/shop/nobody", 405),
    ] {
        assert_eq!(ask(address, request).await, (code, String::new()), "{request}");
    }
}

#[tokio::test]
async fn a_pod_waits_on_its_connection_and_gives_its_place_up_when_it_goes() {
    let bench = Bench::new();
    bench.put_record("main", "10.0.0.1", true);
    bench.ending(&[("a", "echo", "10.0.0.1", 30)]);
    let address = served(&bench).await;
    let waits = tokio::spawn(async move { ask(address, "GET /drained/shop/echo").await });
    let mut goes = TcpStream::connect(address).await.unwrap();
    goes.write_all(b"GET /drained/shop/echo HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let waiting = |number: i64| {
        let metrics = bench.metrics.clone();
        timeout(SOON, async move {
            while metrics.drains_waiting.get() != number {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    };
    waiting(2).await.expect("both wait");
    drop(goes);
    waiting(1).await.expect("one went away");
    bench.delete_record("main", "10.0.0.1");
    assert_eq!(waits.await.unwrap(), (200, String::new()));
}

#[tokio::test]
async fn beyond_the_places_the_code_is_503() {
    let bench = Bench::new();
    bench.put_record("main", "10.0.0.1", true);
    bench.ending(&[("a", "echo", "10.0.0.1", 30)]);
    let address = served(&bench).await;
    for _ in 0..WAITING {
        let drain = bench.drain.clone();
        tokio::spawn(async move { drain.drained(&key()).await });
    }
    while bench.metrics.drains_waiting.get() < i64::try_from(WAITING).unwrap() {
        tokio::task::yield_now().await;
    }
    assert_eq!(ask(address, "GET /drained/shop/echo").await, (503, String::new()));
    assert_eq!(ask(address, "GET /drained/shop/nobody").await, (200, String::new()));
}

#[tokio::test]
async fn the_last_answers_go_out_before_the_process_ends() {
    let bench = Bench::new();
    bench.put_record("main", "10.0.0.1", true);
    bench.ending(&[("a", "echo", "10.0.0.1", 30)]);
    let address = served(&bench).await;
    let waiting: Vec<_> =
        (0..20).map(|_| tokio::spawn(async move { ask(address, "GET /drained/shop/echo").await })).collect();
    while bench.metrics.drains_waiting.get() < 20 {
        tokio::task::yield_now().await;
    }
    bench.stopping.cancel();
    for waits in waiting {
        assert_eq!(waits.await.unwrap(), (200, String::new()));
    }
    assert_eq!(bench.counted("stopping"), 20);
}
