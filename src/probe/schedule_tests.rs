use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;

use super::*;

/// How long a silent address takes.
const SILENCE: Duration = Duration::from_secs(1);

/// Gives the answer of each address that the test sets, or the one of all others, and counts.
struct Scripted {
    answer: Mutex<Answer>,
    of: Mutex<BTreeMap<InstanceAddr, Answer>>,
    times: AtomicUsize,
}

#[async_trait]
impl Prober for Scripted {
    async fn probe(&self, addr: InstanceAddr) -> Answer {
        self.times.fetch_add(1, Ordering::Relaxed);
        let answer = self.of.lock().unwrap().get(&addr).copied().unwrap_or(*self.answer.lock().unwrap());
        if answer == Answer::NoAnswer {
            tokio::time::sleep(SILENCE).await;
        }
        answer
    }
}

struct Bench {
    prober: Arc<Scripted>,
    probes: Probes,
    leadership: Leadership,
    events: mpsc::UnboundedReceiver<ProbeEvent>,
    stop: CancellationToken,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn bench(answer: Answer) -> Bench {
    let prober = Arc::new(Scripted { answer: Mutex::new(answer), of: Mutex::default(), times: AtomicUsize::new(0) });
    let (leadership, stop) = (Leadership::none(), CancellationToken::new());
    let (sender, events) = mpsc::unbounded_channel();
    let probes = Probes::default();
    tokio::spawn(probes.clone().run(prober.clone(), leadership.clone(), sender, Env::real(), stop.clone()));
    Bench { prober, probes, leadership, events, stop }
}

impl Bench {
    fn leads(&self) {
        self.leadership.acquired();
    }

    fn answers(&self, answer: Answer) {
        *self.prober.answer.lock().unwrap() = answer;
    }

    fn asked(&self, expected: std::ops::RangeInclusive<usize>, why: &str) {
        let times = self.prober.times.swap(0, Ordering::Relaxed);
        assert!(expected.contains(&times), "{why}: asked {times} times");
    }

    fn answer(&self, service: &ServiceKey, addr: InstanceAddr) -> Option<Probe> {
        self.probes.answers(service, Term(self.leadership.term()?)).get(&addr).copied()
    }
}

async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

fn addr(n: usize) -> InstanceAddr {
    InstanceAddr::parse(&format!("10.0.{}.{}:80", n / 250, 1 + n % 250)).unwrap()
}

fn service(name: &str) -> ServiceKey {
    ServiceKey::new("ns", name)
}

#[tokio::test(start_paused = true)]
async fn each_address_is_asked_once_at_its_pace_and_only_by_the_leader() {
    let bench = bench(Answer::Accepted);
    let (addr, one, two) = (addr(0), service("one"), service("two"));
    bench.probes.ask(&one, &BTreeSet::from([addr]));
    bench.probes.ask(&two, &BTreeSet::from([addr]));
    seconds(5).await;
    bench.asked(0..=0, "not the leader");
    bench.leads();
    seconds(1).await;
    bench.asked(1..=2, "immediately when it leads");
    assert_eq!(bench.answer(&one, addr).unwrap().answer, Answer::Accepted);
    let since = bench.answer(&two, addr).unwrap().since;
    seconds(100).await;
    bench.asked(18..=29, "seldom after a while");
    assert_eq!(bench.answer(&two, addr).unwrap().since, since, "the same answer is the same since then");
    bench.answers(Answer::NoAnswer);
    seconds(7).await;
    assert_eq!(bench.answer(&one, addr).unwrap().answer, Answer::NoAnswer);
    bench.probes.ask(&one, &BTreeSet::new());
    assert_eq!(bench.answer(&one, addr), None);
    bench.asked(1..=3, "one service still asks");
    bench.probes.ask(&two, &BTreeSet::new());
    seconds(60).await;
    bench.asked(0..=1, "no service asks");
}

#[tokio::test(start_paused = true)]
async fn each_term_asks_anew_and_believes_no_answer_of_another() {
    let bench = bench(Answer::NoAnswer);
    let (addr, one) = (addr(0), service("one"));
    bench.probes.ask(&one, &BTreeSet::from([addr]));
    bench.leads();
    seconds(30).await;
    let silent = bench.answer(&one, addr).unwrap();
    assert!(silent.times > 3, "{silent:?}");
    let first = Term(bench.leadership.term().unwrap());
    bench.leadership.lost();
    // A pass of the new term may run before anything else.
    bench.leads();
    let again = Term(bench.leadership.term().unwrap());
    assert_eq!((bench.answer(&one, addr), first == again), (None, false));
    bench.answers(Answer::Accepted);
    seconds(10).await;
    // The probe that was under way has been answered since, and says nothing.
    assert_eq!(bench.answer(&one, addr).unwrap().answer, Answer::Accepted);
    assert_eq!(bench.probes.answers(&one, first), BTreeMap::new());
    bench.asked(9..=50, "often, as after every beginning");
    bench.leadership.lost();
    seconds(3600).await;
    bench.asked(0..=1, "another replica leads");
}

#[tokio::test(start_paused = true)]
async fn silence_is_told_when_it_begins_and_when_it_means_something() {
    let mut bench = bench(Answer::NoAnswer);
    let (addr, one) = (addr(0), service("one"));
    bench.probes.ask(&one, &BTreeSet::from([addr]));
    bench.leads();
    for (times, why) in [(1, "it begins"), (MISSING_ANSWERS, "it counts")] {
        bench.events.recv().await.unwrap();
        assert_eq!(bench.answer(&one, addr).unwrap().times, times, "{why}");
    }
    seconds(60).await;
    assert!(bench.events.try_recv().is_err(), "the same answer");
}

#[tokio::test(start_paused = true)]
async fn many_silent_addresses_delay_no_other() {
    let bench = bench(Answer::NoAnswer);
    let (many, one) = (service("many"), service("one"));
    bench.probes.ask(&many, &(1..=700).map(addr).collect());
    bench.leads();
    seconds(15).await;
    bench.prober.of.lock().unwrap().insert(addr(0), Answer::Refused);
    bench.probes.ask(&one, &BTreeSet::from([addr(0)]));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(bench.answer(&one, addr(0)).map(|probe| probe.answer), Some(Answer::Refused));
    // Nothing of the round goes on once another replica leads.
    bench.leadership.lost();
    seconds(2).await;
    bench.asked(0..=1000, "until then");
    seconds(60).await;
    bench.asked(0..=0, "another replica leads");
}

#[tokio::test(start_paused = true)]
async fn a_term_begins_without_the_answers_and_the_pace_of_the_one_before() {
    let bench = bench(Answer::NoAnswer);
    let (addr, one) = (addr(0), service("one"));
    bench.probes.ask(&one, &BTreeSet::from([addr]));
    bench.leads();
    seconds(30).await;
    bench.leadership.lost();
    bench.leads();
    // The first probe of this term is under way.
    tokio::time::sleep(SILENCE / 2).await;
    assert_eq!(bench.answer(&one, addr), None);
    bench.asked(13..=30, "in the term before");
    seconds(9).await;
    bench.asked(7..=10, "often, as after every beginning");
    assert!(bench.answer(&one, addr).unwrap().times <= 10, "counted anew");
}

#[tokio::test(start_paused = true)]
async fn a_probe_of_the_term_before_that_is_answered_late_says_nothing() {
    let bench = bench(Answer::NoAnswer);
    let (addr, one) = (addr(0), service("one"));
    bench.probes.ask(&one, &BTreeSet::from([addr]));
    bench.leads();
    tokio::time::sleep(SILENCE / 2).await;
    bench.answers(Answer::Accepted);
    bench.leadership.lost();
    bench.leads();
    tokio::time::sleep(SILENCE * 3 / 4).await;
    assert_eq!(bench.answer(&one, addr).map(|probe| probe.answer), Some(Answer::Accepted));
}
