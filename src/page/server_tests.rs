//! The page over real connections: its door, its answers and its streams.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use twinspan_core::Timestamp;

use super::board_tests::{key, registry, service};
use super::detail::{Detail, Instance};
use super::door::Hosts;
use super::rows::{Hold, State};
use super::source::{STREAMS, WHOLES};
use super::{Board, Page, bounds, pages};
use crate::env::Env;
use crate::leadership::Leadership;
use crate::telemetry::patience::Patience;
use crate::telemetry::server::{Bounds, serve_within};

const SOON: Duration = Duration::from_secs(20);

struct Served {
    board: Board,
    leadership: Leadership,
    address: SocketAddr,
    stop: CancellationToken,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn served() -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    served_within(bounds(), listener)
}

fn served_within(bounds: Bounds, listener: TcpListener) -> Served {
    let (board, leadership, env) = (Board::on(), Leadership::none(), Env::real());
    leadership.acquired();
    let explain = |_: &_, leads: bool| {
        let instance = Instance {
            instance: "10.0.0.1:8888".to_owned(),
            cluster: true,
            registry: leads,
            state: "Exported".to_owned(),
            why: "as p/echo.rpc/10.0.0.1:8888".to_owned(),
            until: None,
            records: Vec::new(),
        };
        Some(Detail { conditions: Vec::new(), instances: vec![instance], instances_total: 1 })
    };
    let hosts = Hosts::parse("page.example.org").unwrap();
    let page = Page::new(board.clone(), leadership.clone(), "twinspan-0", hosts, Arc::new(explain), env.clone());
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    tokio::spawn(serve_within(bounds, listener, pages(page), env, stop.clone()));
    Served { board, leadership, address, stop }
}

impl Served {
    /// The whole answer to a request without a body.
    async fn ask(&self, head: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        timeout(SOON, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn get(&self, path: &str) -> String {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: localhost:8082")).await
    }

    async fn json(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    /// A connection that asked for the stream and has read nothing yet.
    async fn stream(&self, query: &str) -> BufReader<TcpStream> {
        self.reader(&format!("/events?{query}")).await
    }

    /// A connection that asked for a path and has read nothing yet.
    async fn reader(&self, path: &str) -> BufReader<TcpStream> {
        let socket = TcpSocket::new_v4().unwrap();
        // Small, so that a reader which stops is soon felt.
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(self.address).await.unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        BufReader::new(stream)
    }

    /// The query of a stream that goes on where `/state` is.
    async fn query(&self) -> String {
        let state = self.json("/state").await;
        format!("since={}&boot={}", state["version"], state["boot"].as_str().unwrap())
    }
}

async fn line(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = String::new();
    let read = timeout(SOON, reader.read_line(&mut line)).await.expect("a line in time").unwrap_or(0);
    (read > 0).then(|| line.trim_end().to_owned())
}

/// Name and data of the next event.
async fn event(reader: &mut BufReader<TcpStream>) -> (String, Value) {
    let mut name = String::new();
    loop {
        let line = line(reader).await.expect("the stream goes on");
        if let Some(event) = line.strip_prefix("event: ") {
            event.clone_into(&mut name);
        } else if let Some(data) = line.strip_prefix("data: ") {
            return (name, serde_json::from_str(data).unwrap());
        }
    }
}

fn now() -> Timestamp {
    Timestamp::from_second(1_767_268_800).unwrap()
}

#[tokio::test]
async fn every_answer_has_the_headers_of_the_page() {
    let page = served().await;
    let host = "Host: localhost";
    for (head, status) in [
        (format!("GET / HTTP/1.1\r\n{host}"), 200),
        (format!("HEAD / HTTP/1.1\r\n{host}"), 200),
        (format!("GET /page.js HTTP/1.1\r\n{host}"), 200),
        (format!("GET /state HTTP/1.1\r\n{host}"), 200),
        (format!("GET /state HTTP/1.1\r\n{host}\r\nOrigin: https://evil.example"), 200),
        (format!("GET /service/shop/none HTTP/1.1\r\n{host}"), 404),
        (format!("GET /../etc/passwd HTTP/1.1\r\n{host}"), 404),
        (format!("GET /assets/index.html HTTP/1.1\r\n{host}"), 404),
        (format!("POST /state HTTP/1.1\r\n{host}\r\nContent-Length: 0"), 405),
        (format!("DELETE / HTTP/1.1\r\n{host}"), 405),
        (format!("OPTIONS /state HTTP/1.1\r\n{host}\r\nOrigin: https://evil.example"), 405),
        ("GET / HTTP/1.1\r\nHost: evil.example".to_owned(), 421),
        ("GET /state HTTP/1.1\r\nHost: localhost.evil.example".to_owned(), 421),
        ("GET / HTTP/1.0".to_owned(), 421),
        ("GET / HTTP/1.1\r\nHost: page.example.org".to_owned(), 200),
        (format!("GET /state HTTP/1.1\r\n{host}\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: cors"), 403),
    ] {
        let answer = page.ask(&head).await;
        let head_of_answer = answer.split("\r\n\r\n").next().unwrap().to_lowercase();
        assert_eq!(answer.split(' ').nth(1), Some(status.to_string().as_str()), "{head}: {answer}");
        for header in [
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
             connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cache-control: no-store",
            "cross-origin-resource-policy: same-origin",
        ] {
            assert!(head_of_answer.lines().any(|line| line == header), "{head}: {header} is not in {answer}");
        }
        assert!(!head_of_answer.contains("access-control"), "{answer}");
        if status == 421 {
            assert!(answer.contains("--page-hosts"), "{answer}");
        }
    }
}

#[tokio::test]
async fn the_state_is_every_line_and_a_standby_shows_no_hold() {
    let page = served().await;
    let hold = Hold { since: now(), until: now(), hash: "0a1b".to_owned(), held: 12, command: "c".to_owned() };
    page.board.put_registry(super::rows::Registry { hold: Some(hold.clone()), ..registry("main") });
    let held = super::rows::Service { held: 12, state: State::Held, ..service("main", 3, 0) };
    page.board.put(&key(0), held, Some(hold), Some(Duration::from_millis(12)), now());
    let state = page.json("/state").await;
    assert_eq!(
        (&state["leader"], &state["replica"], &state["clusterID"]),
        (&true.into(), &"twinspan-0".into(), &"c1".into())
    );
    let row = &state["services"][0];
    for (field, value) in [
        ("key", Value::from("shop/s00000")),
        ("namespace", "shop".into()),
        ("name", "s00000".into()),
        ("registry", "main".into()),
        ("registryName", "echo.rpc".into()),
        ("state", "Held".into()),
        ("exported", 3.into()),
        ("held", 12.into()),
        ("latency", vec![12].into()),
        ("updated", "2026-01-01T12:00:00.000Z".into()),
        ("lastVerified", Value::Null),
    ] {
        assert_eq!(row[field], value, "{field} of {row}");
    }
    assert_eq!(state["registries"][0]["hold"]["held"], 12);
    let full = page.json("/service/shop/s00000").await;
    assert_eq!((&full["hold"]["command"], &full["instancesTotal"]), (&"c".into(), &1.into()));
    assert_eq!((&full["row"], &full["instances"][0]["registry"]), (row, &true.into()));

    page.leadership.lost();
    let standby = page.json("/state").await;
    assert_eq!((&standby["leader"], &standby["registries"][0]["hold"]), (&false.into(), &Value::Null));
    assert_eq!((&standby["services"][0]["held"], &standby["services"][0]["state"]), (&0.into(), &"Pending".into()));
    assert_ne!(standby["boot"], state["boot"], "readers begin anew");
    let full = page.json("/service/shop/s00000").await;
    assert_eq!((&full["hold"], &full["instances"][0]["registry"]), (&Value::Null, &false.into()));
}

#[tokio::test]
async fn a_change_arrives_within_a_second_and_many_come_together() {
    let page = served().await;
    page.board.put(&key(0), service("main", 1, 0), None, None, now());
    let mut reader = page.stream(&page.query().await).await;
    // The head has arrived, so that the stream waits.
    while !line(&mut reader).await.unwrap().is_empty() {}
    let began = Instant::now();
    page.board.put(&key(0), service("main", 2, 0), None, None, now());
    let (name, change) = event(&mut reader).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(
        (name.as_str(), &change["services"][0]["exported"], &change["version"]),
        ("change", &2.into(), &2.into())
    );
    for exported in 3..100 {
        page.board.put(&key(0), service("main", exported, 0), None, None, now());
    }
    page.board.remove(&key(1));
    page.board.put(&key(1), service("main", 1, 0), None, None, now());
    page.board.remove(&key(1));
    let (_, change) = event(&mut reader).await;
    assert_eq!((change["services"].as_array().unwrap().len(), &change["services"][0]["exported"]), (1, &99.into()));
    assert_eq!((&change["gone"][0], &change["registries"]), (&"shop/s00001".into(), &Value::Null));
    page.board.put_registry(registry("main"));
    assert_eq!(event(&mut reader).await.1["registries"][0]["name"], "main");
    page.board.remove_registry("main");
    let (_, change) = event(&mut reader).await;
    assert_eq!(change["registries"], Value::Array(Vec::new()), "the last one is gone");
    page.leadership.lost();
    assert_eq!(event(&mut reader).await.0, "reset", "what may be shown is another");
}

#[tokio::test]
async fn a_reader_of_another_process_begins_anew_and_one_that_connects_again_goes_on() {
    let page = served().await;
    page.board.put(&key(0), service("main", 1, 0), None, None, now());
    for query in ["since=0&boot=other", "", "since=7"] {
        assert_eq!(event(&mut page.stream(query).await).await.0, "reset", "{query}");
    }
    let query = page.query().await;
    page.board.put(&key(1), service("main", 1, 0), None, None, now());
    let boot = query.split_once("boot=").unwrap().1;
    let mut stream = TcpStream::connect(page.address).await.unwrap();
    let head = format!("GET /events?since=0&boot=other HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: 1@{boot}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let (name, change) = event(&mut BufReader::new(stream)).await;
    assert_eq!((name.as_str(), change["services"].as_array().unwrap().len()), ("change", 1));
}

#[tokio::test]
async fn a_stream_too_many_is_told_when_to_come_again() {
    let page = served().await;
    let query = page.query().await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let mut reader = page.stream(&query).await;
        assert_eq!(line(&mut reader).await.as_deref(), Some("HTTP/1.1 200 OK"));
        streams.push(reader);
    }
    let refused = page.get(&format!("/events?{query}")).await;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.to_lowercase().contains("retry-after: 10"), "{refused}");
    streams.pop();
    let deadline = Instant::now() + SOON;
    loop {
        let mut reader = page.stream(&query).await;
        if line(&mut reader).await.as_deref() == Some("HTTP/1.1 200 OK") {
            break;
        }
        assert!(Instant::now() < deadline, "the place of a reader that left is not free");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A hundred readers that read nothing, while everything changes: the board answers as before, others are served, and
/// those that do not read are dropped.
#[tokio::test]
async fn readers_that_do_not_read_cost_nothing_and_are_dropped() {
    let page = served().await;
    let put = |round: i64| {
        for n in 0..2_000 {
            let row = super::rows::Service { message: "m".repeat(900), ..service("main", round, 0) };
            page.board.put(&key(n), row, None, None, now());
        }
    };
    put(0);
    let query = page.query().await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(page.stream(&query).await);
    }
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut round = 0;
    loop {
        round += 1;
        put(round);
        let state = timeout(SOON, page.json("/state")).await.expect("others are served");
        assert_eq!(state["services"].as_array().unwrap().len(), 2_000);
        // A free place shows that a reader was dropped.
        let mut reader = page.stream(&page.query().await).await;
        if line(&mut reader).await.as_deref() == Some("HTTP/1.1 200 OK") {
            break;
        }
        assert!(Instant::now() < deadline, "no reader was dropped");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    drop(silent);
}

/// Each change of the leadership makes an answer of its own; a reader that reads nothing keeps the one that it got.
#[tokio::test]
async fn slow_readers_of_the_state_keep_a_few_answers_in_memory_and_no_more() {
    let page = served().await;
    for n in 0..8_000 {
        // More than the kernel takes for a reader.
        let row = super::rows::Service { message: "m".repeat(900), ..service("main", 1, 0) };
        page.board.put(&key(n), row, None, None, now());
    }
    let mut slow = Vec::new();
    for _ in 0..WHOLES {
        let mut reader = page.reader("/state").await;
        assert_eq!(line(&mut reader).await.as_deref(), Some("HTTP/1.1 200 OK"));
        slow.push(reader);
        page.leadership.lost();
        page.leadership.acquired();
    }
    let refused = page.get("/state").await;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.to_lowercase().contains("retry-after: 10"), "{refused}");
    slow.pop();
    let deadline = Instant::now() + SOON;
    while !page.get("/state").await.starts_with("HTTP/1.1 200") {
        assert!(Instant::now() < deadline, "the place of a reader that left is not free");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Bounds in which a reader has so much time for everything that is queued.
fn drained_within(drained: Duration) -> Bounds {
    let patience = Patience { drained, ..bounds().patience };
    Bounds { patience, ..bounds() }
}

/// Readers that read a little of everything, again and again, lose their places.
#[tokio::test]
async fn readers_that_trickle_give_their_places_back() {
    let socket = TcpSocket::new_v4().unwrap();
    // Small, so that each read lets a write go on.
    socket.set_send_buffer_size(16 * 1024).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let page = served_within(drained_within(Duration::from_secs(1)), socket.listen(64).unwrap());
    for n in 0..8_000 {
        let row = super::rows::Service { message: "m".repeat(900), ..service("main", 1, 0) };
        page.board.put(&key(n), row, None, None, now());
    }
    let mut tricklers = Vec::new();
    for _ in 0..WHOLES {
        let mut reader = page.reader("/state").await;
        assert_eq!(line(&mut reader).await.as_deref(), Some("HTTP/1.1 200 OK"));
        tricklers.push(tokio::spawn(async move {
            let mut some = [0; 2048];
            while reader.read(&mut some).await.is_ok_and(|read| read > 0) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }));
        page.leadership.lost();
        page.leadership.acquired();
    }
    let deadline = Instant::now() + SOON;
    while !page.get("/state").await.starts_with("HTTP/1.1 200") {
        assert!(Instant::now() < deadline, "those that trickle keep their places");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tricklers.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn an_explanation_is_followed_by_a_rest() {
    let page = served().await;
    page.board.put(&key(0), service("main", 1, 0), None, None, now());
    let began = Instant::now();
    for _ in 0..20 {
        page.json("/service/shop/s00000").await;
    }
    assert!(began.elapsed() >= Duration::from_millis(19 * 10), "{:?}", began.elapsed());
}

#[tokio::test]
async fn the_answers_say_whether_everything_was_looked_at() {
    let page = served().await;
    assert_eq!(page.json("/state").await["complete"], false);
    let mut reader = page.stream(&page.query().await).await;
    page.board.put(&key(0), service("main", 1, 0), None, None, now());
    assert_eq!(event(&mut reader).await.1["complete"], false);
    page.board.complete();
    let (name, change) = event(&mut reader).await;
    assert_eq!(
        (name.as_str(), &change["complete"], &change["registries"]),
        ("change", &true.into(), &Value::Array(Vec::new()))
    );
    let deadline = Instant::now() + SOON;
    while page.json("/state").await["complete"] != true {
        assert!(Instant::now() < deadline, "the state does not say so");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn messages_of_the_page_have_names() {
    let page = served().await;
    let row = |message: &str| super::rows::Service {
        reason: "RegistryUnavailable".to_owned(),
        message: message.to_owned(),
        ..service("main", 1, 0)
    };
    page.board.put(&key(0), row("its ServiceRegistry cannot be followed; see there"), None, None, now());
    page.board.put(&key(1), service("main", 1, 0), None, None, now());
    let state = page.json("/state").await;
    assert_eq!(state["services"][0]["messageCode"], "SeeRegistry");
    assert_eq!(state["services"][1]["messageCode"], Value::Null);
}

#[tokio::test]
async fn a_standby_tells_no_note_of_a_hold() {
    let page = served().await;
    let note = |reason: &str| super::rows::Note {
        kind: "Discovered".to_owned(),
        reason: reason.to_owned(),
        message: "m".to_owned(),
        code: None,
    };
    let notes = vec![note("Held"), note("DiscoveryLimited")];
    page.board.put_registry(super::rows::Registry { notes, ..registry("main") });
    let reasons = |state: &Value| {
        let notes = state["registries"][0]["notes"].as_array().unwrap().clone();
        notes.into_iter().map(|note| note["reason"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(reasons(&page.json("/state").await), ["Held", "DiscoveryLimited"]);
    page.leadership.lost();
    assert_eq!(reasons(&page.json("/state").await), ["DiscoveryLimited"]);
}

#[tokio::test]
async fn streams_end_with_the_process() {
    let page = served().await;
    let mut reader = page.stream(&page.query().await).await;
    assert!(line(&mut reader).await.is_some());
    page.stop.cancel();
    let mut rest = Vec::new();
    let ended = timeout(SOON, reader.read_to_end(&mut rest)).await.expect("the stream ends");
    assert!(ended.is_ok() || ended.is_err(), "closed or reset");
}
