use std::collections::{BTreeMap, VecDeque};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use futures::stream;
use jiff::SignedDuration;
use serde_json::{Value, json};
use twinspan_core::model::ServiceKey;

use super::*;
use crate::cluster::convert;
use crate::cluster::reach::{Limits, Reach};

#[path = "watch_properties.rs"]
mod properties;

/// The answer to one request.
enum Answer {
    Json(Value),
    Refused(u16),
    /// Never.
    Nothing,
    /// Events of a watch, which then ends.
    Ends(Vec<Value>),
    /// Events of a watch, which then says nothing more.
    Silent(Vec<Value>),
}

/// An API server that answers one request after the other as a test wants; afterwards it refuses all.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    answers: VecDeque<Answer>,
    /// The time and the URI of each request.
    requests: Vec<(Instant, String)>,
}

impl Server {
    fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self(Arc::new(Mutex::new(State { answers: answers.into_iter().collect(), requests: Vec::new() })))
    }

    fn client(&self) -> Client {
        let server = self.clone();
        let answer = move |request: Request| {
            let server = server.clone();
            async move { server.answer(request.uri().to_string()).await }
        };
        Client::new(Router::new().fallback(answer), "default")
    }

    async fn answer(&self, uri: String) -> Response {
        let answer = {
            let mut state = self.0.lock().unwrap();
            state.requests.push((Instant::now(), uri));
            state.answers.pop_front().unwrap_or(Answer::Refused(503))
        };
        let lines =
            |events: Vec<Value>| stream::iter(events.into_iter().map(|e| Ok::<_, std::io::Error>(format!("{e}\n"))));
        let (code, body) = match answer {
            Answer::Json(body) => (200, Body::from(body.to_string())),
            Answer::Refused(code) => {
                let reason = if code == 403 { "Forbidden" } else { "ServiceUnavailable" };
                let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no",
                    "reason": reason, "code": code});
                (code, Body::from(status.to_string()))
            }
            Answer::Nothing => return std::future::pending().await,
            Answer::Ends(events) => (200, Body::from_stream(lines(events))),
            Answer::Silent(events) => (200, Body::from_stream(lines(events).chain(stream::pending()))),
        };
        Response::builder().status(code).body(body).unwrap()
    }

    /// The URIs of the requests so far.
    fn queries(&self) -> Vec<String> {
        self.0.lock().unwrap().requests.iter().map(|(_, uri)| uri.clone()).collect()
    }

    /// The requests so far: seconds since the start, and whether each is a watch, from which version.
    fn requests(&self, start: Instant) -> Vec<(u64, String)> {
        let version = |uri: &str| {
            let watch = uri.contains("watch=true");
            let version = uri.split(['?', '&']).find_map(|part| part.strip_prefix("resourceVersion="));
            if watch { format!("watch {}", version.unwrap_or_default()) } else { "list".to_owned() }
        };
        self.0.lock().unwrap().requests.iter().map(|(at, uri)| ((*at - start).as_secs(), version(uri))).collect()
    }
}

struct Bench {
    server: Server,
    watches: Watches,
    events: mpsc::UnboundedReceiver<ClusterEvent>,
    start: Instant,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.watches.stop.cancel();
    }
}

/// The part that watches of all kinds share, and the events that they send.
fn watches() -> (Watches, mpsc::UnboundedReceiver<ClusterEvent>) {
    let (sender, events) = mpsc::unbounded_channel();
    let stop = CancellationToken::new();
    let watches = Watches {
        view: Arc::default(),
        events: sender,
        env: Env::started_at(jiff::Timestamp::now, || 1.0),
        server: "https://api".to_owned(),
        metrics: Arc::default(),
        stop: stop.clone(),
        tasks: Tasks::new(stop, Env::real()),
    };
    (watches, events)
}

/// The watch of one kind.
fn watch<K: Watched>(api: impl FnOnce(Client) -> Api<K>, answers: impl IntoIterator<Item = Answer>) -> Bench {
    let (watches, events) = watches();
    let server = Server::new(answers);
    watches.view().heard(K::KIND, watches.env.now());
    watches.follow(api(server.client()), WHOLE.to_owned());
    Bench { server, watches, events, start: Instant::now() }
}

impl Bench {
    async fn after(&self, seconds: u64) -> Vec<(u64, String)> {
        tokio::time::sleep_until(self.start + Duration::from_secs(seconds)).await;
        self.server.requests(self.start)
    }

    fn unheard_for(&self, kind: Kind) -> SignedDuration {
        self.watches.view().unheard_for(kind, self.watches.env.now()).unwrap()
    }

    /// The restarts of the watch that the metrics show, by reason.
    fn restarts(&self) -> BTreeMap<String, u64> {
        let shown = self.watches.metrics.print().unwrap();
        let of = |line: &str| {
            let (labels, count) =
                line.strip_prefix("twinspan_watch_restarts_total{kind=\"Service\",")?.split_once("} ")?;
            let reason = labels.strip_prefix("reason=\"")?.strip_suffix('"')?;
            Some((reason.to_owned(), count.parse().unwrap()))
        };
        shown.lines().filter_map(of).collect()
    }

    fn events(&mut self) -> Vec<ClusterEvent> {
        std::iter::from_fn(|| self.events.try_recv().ok()).collect()
    }
}

fn service(name: &str, version: u64) -> Value {
    json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "shop", "resourceVersion": version.to_string()}, "spec": {}})
}

fn list(version: u64, items: &[Value]) -> Answer {
    Answer::Json(
        json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version.to_string()}, "items": items}),
    )
}

fn event(kind: &str, object: &Value) -> Value {
    json!({"type": kind, "object": object})
}

fn owned(requests: &[(u64, &str)]) -> Vec<(u64, String)> {
    requests.iter().map(|(at, what)| (*at, (*what).to_owned())).collect()
}

/// An API server before 1.32 refuses streaming lists (`docs/decisions/0038`).
#[tokio::test(start_paused = true)]
async fn an_api_server_without_streaming_lists_is_good_enough() {
    let bench = watch(Api::<Service>::all, [list(7, &[]), Answer::Silent(vec![])]);
    assert_eq!(bench.after(1).await, owned(&[(0, "list"), (0, "watch 7")]));
    let asked = bench.server.0.lock().unwrap().requests.iter().map(|(_, uri)| uri.clone()).collect::<String>();
    assert!(!asked.contains("sendInitialEvents") && asked.contains("limit=500"), "{asked}");
}

#[tokio::test(start_paused = true)]
async fn an_opening_that_is_not_answered_is_tried_again() {
    let bench = watch(Api::<Service>::all, [list(7, &[]), Answer::Nothing, Answer::Silent(vec![])]);
    assert_eq!(bench.after(9).await, owned(&[(0, "list"), (0, "watch 7")]));
    assert_eq!(bench.after(12).await, owned(&[(0, "list"), (0, "watch 7"), (10, "watch 7")]));
}

#[tokio::test(start_paused = true)]
async fn a_page_that_is_not_answered_is_asked_for_again() {
    let bench = watch(Api::<Service>::all, [Answer::Nothing, list(7, &[service("a", 1)]), Answer::Silent(vec![])]);
    assert_eq!(bench.after(62).await, owned(&[(0, "list"), (60, "list"), (60, "watch 7")]));
    assert!(bench.watches.view().services.get(&ServiceKey::new("shop", "a")).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_was_cut_silently_is_left_and_the_watch_goes_on_from_the_last_version() {
    let bookmark = json!({"kind": "Service", "apiVersion": "v1", "metadata": {"resourceVersion": "12"}});
    let events = vec![event("ADDED", &service("a", 9)), event("BOOKMARK", &bookmark)];
    let bench = watch(
        Api::<Service>::all,
        [list(7, &[]), Answer::Silent(events), Answer::Ends(vec![]), Answer::Silent(vec![])],
    );
    assert_eq!(bench.after(64).await, owned(&[(0, "list"), (0, "watch 7")]));
    assert_eq!(bench.unheard_for(Kind::Service).as_secs(), 64);
    // One that the server ends is opened again, but not at once if it had only just begun.
    assert_eq!(bench.after(68).await[2..], owned(&[(65, "watch 12"), (66, "watch 12")]));
    assert_eq!(bench.restarts(), ["silent", "too_short"].map(|reason| (reason.to_owned(), 1)).into());
    assert!(bench.unheard_for(Kind::Service).as_secs() < 3);
    assert!(bench.watches.view().silent(bench.watches.env.now()).is_empty());
}

#[tokio::test(start_paused = true)]
async fn failures_back_off_although_each_attempt_begins_with_a_list() {
    let bench = watch(Api::<Service>::all, []);
    let times: Vec<u64> = bench.after(60).await.into_iter().map(|(at, _)| at).collect();
    assert!(times.starts_with(&[0, 0, 1, 3, 7, 12, 17]), "{times:?}");
    assert_eq!(times.len(), 15, "every five seconds at last");
    assert!(bench.watches.view().silent(bench.watches.env.now()).is_empty());
    bench.after(91).await;
    assert!(bench.watches.view().silent(bench.watches.env.now()).contains(&Kind::Service));
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_gone_leads_to_a_list_which_shows_what_went() {
    let gone = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "too old", "code": 410});
    let answers = [
        list(7, &[service("a", 1), service("b", 2)]),
        Answer::Ends(vec![event("ERROR", &gone)]),
        list(20, &[service("b", 2)]),
        Answer::Silent(vec![]),
    ];
    let mut bench = watch(Api::<Service>::all, answers);
    let [a, b] = ["a", "b"].map(|name| ServiceKey::new("shop", name));
    let named: RegisteredService = serde_json::from_value(json!({
        "metadata": {"name": "a", "namespace": "shop"}, "spec": {"registryRef": {"name": "main"}},
    }))
    .unwrap();
    bench.watches.view().index.put(&a, &named);
    assert_eq!(bench.after(5).await, owned(&[(0, "list"), (0, "watch 7"), (0, "list"), (0, "watch 20")]));
    assert_eq!(bench.watches.view().services.keys().collect::<Vec<_>>(), [&b]);
    let service = |key: &ServiceKey| ClusterEvent::Service(key.clone());
    assert_eq!(bench.events(), [service(&a), service(&b), ClusterEvent::Synced(Kind::Service), service(&a)]);
    assert_eq!(bench.watches.view().listings(&a), 2, "no event showed how it went");
    assert_eq!(bench.restarts(), [("expired".to_owned(), 1)].into());
}

#[tokio::test(start_paused = true)]
async fn an_object_that_cannot_be_read_is_present_and_refused_and_the_others_are_listed() {
    let object = |name: &str, direction: &str, version: u64| {
        json!({"apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService",
            "metadata": {"name": name, "namespace": "shop", "uid": name, "resourceVersion": version.to_string()},
            "spec": {"registryRef": {"name": "main"}, "registryName": "n", "direction": direction}})
    };
    let answers = [
        list(7, &[object("a", "Both", 1), object("b", "Sideways", 2)]),
        Answer::Silent(vec![
            event("MODIFIED", &object("a", "Sideways", 8)),
            event("MODIFIED", &object("b", "Import", 9)),
        ]),
    ];
    let mut bench = watch(Api::<Stored<RegisteredService>>::all, answers);
    bench.after(1).await;
    let [a, b] = ["a", "b"].map(|name| ServiceKey::new("shop", name));
    {
        let view = bench.watches.view();
        assert!(view.has_listed(&[Kind::RegisteredService]));
        assert_eq!(view.registered_services.keys().collect::<Vec<_>>(), [&a, &b]);
        assert_eq!(view.unreadable_services.keys().collect::<Vec<_>>(), [&a], "the other one was corrected");
        assert_eq!(view.index.of_name("main", b"n").count(), 2, "its name is known");
    }
    let changed = |key: &ServiceKey| ClusterEvent::RegisteredService(key.clone());
    let events = bench.events();
    assert!(events.ends_with(&[changed(&a), changed(&b), changed(&a), changed(&b)]), "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn silence_is_told_when_it_begins_and_when_it_ends() {
    let mut bench = watch(Api::<Service>::all, []);
    let watches = bench.watches.clone();
    let listening = tokio::spawn(async move { watches.listen().await });
    bench.after(89).await;
    assert_eq!(bench.events(), []);
    bench.after(96).await;
    assert_eq!(bench.events(), [ClusterEvent::Heard]);
    bench.after(200).await;
    assert_eq!(bench.events(), [], "once");
    bench.server.0.lock().unwrap().answers.extend([list(7, &[]), Answer::Silent(vec![])]);
    bench.after(211).await;
    assert_eq!(bench.events(), [ClusterEvent::Synced(Kind::Service), ClusterEvent::Heard]);
    listening.abort();
}

#[tokio::test(start_paused = true)]
async fn a_silence_between_two_looks_is_told_once_it_has_ended() {
    let mut bench = watch(Api::<Service>::all, []);
    let watches = bench.watches.clone();
    let listening = tokio::spawn(async move { watches.listen().await });
    let hear = |bench: &Bench| bench.watches.view().heard(Kind::Service, bench.watches.env.now());
    bench.after(1).await;
    hear(&bench);
    bench.after(92).await;
    assert!(bench.watches.view().silent(bench.watches.env.now()).contains(&Kind::Service));
    hear(&bench);
    bench.after(96).await;
    assert_eq!(bench.events(), [ClusterEvent::Heard], "a pass may have met it");
    bench.after(101).await;
    assert_eq!(bench.events(), [], "once");
    listening.abort();
}

/// Watches of two namespaces, in a view that knows which namespaces there are.
fn watches_of(namespaces: &[&str], there: &[&str]) -> (Watches, mpsc::UnboundedReceiver<ClusterEvent>) {
    let (watches, events) = watches();
    {
        let mut view = watches.view();
        let namespaces = namespaces.iter().map(ToString::to_string).collect();
        view.set_reach(Reach { limits: Some(Limits { namespaces, ..Limits::default() }), ..Reach::default() });
        for part in view.reach().parts(Kind::Namespace) {
            view.watching.set_listed(Kind::Namespace, &part);
        }
        for name in there {
            let namespace = convert::namespace(&serde_json::from_value(json!({"metadata": {"name": name}})).unwrap());
            view.namespaces.insert((*name).to_owned(), Arc::new(namespace));
        }
    }
    (watches, events)
}

#[tokio::test(start_paused = true)]
async fn the_list_of_one_namespace_ends_nothing_of_another() {
    let (watches, _events) = watches_of(&["shop", "pay"], &["shop", "pay"]);
    watches.view().services.put(ServiceKey::new("pay", "b"), convert::service(&Default::default()));
    watches.view().services.put(ServiceKey::new("shop", "gone"), convert::service(&Default::default()));
    let server = Server::new([list(7, &[service("a", 1)]), Answer::Silent(vec![])]);
    watches.follow(Api::<Service>::namespaced(server.client(), "shop"), "shop".to_owned());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let view = watches.view();
    let known: Vec<String> = view.services.keys().map(ToString::to_string).collect();
    assert_eq!(known, ["pay/b", "shop/a"]);
    assert!(!view.has_listed(&[Kind::Service]), "the other one is not listed yet");
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_is_not_there_keeps_nobody_waiting_and_one_without_a_role_does() {
    for (there, complete) in [(&["pay"][..], true), (&["shop", "pay"][..], false)] {
        let (watches, _events) = watches_of(&["shop", "pay"], there);
        watches.view().services.put(ServiceKey::new("shop", "a"), convert::service(&Default::default()));
        watches.view().watching.set_listed(Kind::Service, "pay");
        let server = Server::new([Answer::Refused(403), Answer::Nothing]);
        watches.follow(Api::<Service>::namespaced(server.client(), "shop"), "shop".to_owned());
        tokio::time::sleep(Duration::from_secs(1)).await;
        let view = watches.view();
        assert_eq!(view.has_listed(&[Kind::Service]), complete, "{there:?}");
        assert_eq!(view.services.get(&ServiceKey::new("shop", "a")).is_none(), complete, "{there:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_is_not_there_is_asked_for_once_a_minute_until_it_comes() {
    let (watches, _events) = watches_of(&["shop"], &[]);
    let server = Server::new([Answer::Refused(403), Answer::Refused(403), list(7, &[]), Answer::Silent(vec![])]);
    let start = Instant::now();
    watches.follow(Api::<Service>::namespaced(server.client(), "shop"), "shop".to_owned());
    tokio::time::sleep(Duration::from_secs(72)).await;
    assert_eq!(server.requests(start), owned(&[(0, "list"), (60, "list")]));
    assert!(!watches.metrics.print().unwrap().contains("twinspan_watch_restarts_total{"), "nothing failed");
    let namespace = convert::namespace(&serde_json::from_value(json!({"metadata": {"name": "shop"}})).unwrap());
    watches.view().namespaces.insert("shop".to_owned(), Arc::new(namespace));
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(server.requests(start)[2..], owned(&[(75, "list"), (75, "watch 7")]));
}

#[tokio::test(start_paused = true)]
async fn a_namespace_is_watched_by_its_name() {
    let (watches, _events) = watches_of(&["shop"], &[]);
    let server = Server::new([list(7, &[]), Answer::Silent(vec![])]);
    watches.follow(Api::<Namespace>::all(server.client()), "shop".to_owned());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let asked = server.queries();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked.iter().all(|query| query.contains("fieldSelector=metadata.name%3Dshop")), "{asked:?}");
}

fn service_cidr(version: u64) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": {"name": "kubernetes", "resourceVersion": version.to_string()}, "spec": {"cidrs": ["10.96.0.0/16"]}})
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_the_api_server_may_lack_is_not_waited_for_and_asked_for_now_and_then() {
    let answers = [
        Answer::Refused(404),
        Answer::Refused(404),
        list(7, &[service_cidr(3)]),
        Answer::Silent(vec![]),
        Answer::Silent(vec![]),
    ];
    let mut bench = watch(Api::<ServiceCIDR>::all, answers);
    assert_eq!(bench.after(59).await, owned(&[(0, "list")]));
    assert!(bench.watches.view().has_listed(&[Kind::ServiceCidr]));
    assert_eq!(bench.watches.view().families_without_service_range().len(), 2);
    assert_eq!(bench.events(), [ClusterEvent::Synced(Kind::ServiceCidr)], "nothing waits for it");
    bench.after(119).await;
    assert_eq!(bench.unheard_for(Kind::ServiceCidr).as_secs(), 59, "a refusal is a sign of life");
    assert_eq!(bench.events(), [], "once");
    // An upgrade brings it.
    assert_eq!(bench.after(121).await, owned(&[(0, "list"), (60, "list"), (120, "list"), (120, "watch 7")]));
    assert!(bench.watches.view().networks.trust().service_cidrs.contains("10.96.0.1".parse().unwrap()));
    assert!(bench.watches.view().families_without_service_range().is_empty());
    let events = bench.events();
    assert!(matches!(&events[..], [ClusterEvent::Networks(_), ClusterEvent::Synced(Kind::ServiceCidr)]), "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn what_an_api_server_told_stays_while_another_one_lacks_the_kind() {
    let answers = [list(7, &[service_cidr(3)]), Answer::Ends(vec![]), Answer::Refused(404), Answer::Refused(404)];
    let bench = watch(Api::<ServiceCIDR>::all, answers);
    bench.after(30).await;
    assert!(bench.watches.view().networks.trust().service_cidrs.contains("10.96.0.1".parse().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_needed_is_waited_for() {
    let bench = watch(Api::<Stored<ServiceRegistry>>::all, std::iter::repeat_n((), 9).map(|()| Answer::Refused(404)));
    assert!(bench.after(20).await.len() > 5, "soon again");
    assert!(!bench.watches.view().has_listed(&[Kind::ServiceRegistry]));
}
