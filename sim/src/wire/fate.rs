//! The fate of a message.
//!
//! Owns the draw: a hash of the seed, the sender, the receiver and the number of the message, so that an operation that
//! is taken out of a run changes no other message's fate. Refuses to carry anything.

use std::time::Duration;

use crate::dice::hash;

/// How often messages meet which fate, in 10,000 of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Up to 20 s late.
    pub late: u64,
    /// Lost on the way, and the connection with them.
    pub lost: u64,
    /// Lost on the way, and nobody is told.
    pub silent: u64,
    /// Applied, and the answer is lost with the connection.
    pub answer_lost: u64,
    /// Applied, and nobody is told.
    pub answer_silent: u64,
    /// A stream breaks after this answer.
    pub cut: u64,
    /// A stream stays open and says nothing more.
    pub stalled: u64,
    /// A frame of a stream, and with it all that follow, is up to 20 s late.
    pub frame_late: u64,
}

/// The fate of one request and its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    pub request_delay: Duration,
    pub answer_delay: Duration,
    pub request: Loss,
    pub answer: Loss,
    /// The stream ends, or falls silent, after so many frames.
    pub stream: Option<(u64, Loss)>,
}

/// How something is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Loss {
    #[default]
    None,
    /// The sender sees its connection break.
    Broken,
    /// The sender hears nothing.
    Silent,
}

/// How long a frame of a stream is under way.
pub fn frame_delay(seed: u64, rates: Rates, from: &str, to: &str, number: u64) -> Duration {
    let draw = |what: &str, limit: u64| hash(seed, &[from, to, what], number) % limit;
    let late = draw("late frame", 10_000) < rates.frame_late;
    Duration::from_millis(if late { draw("how late a frame", 20_000) } else { draw("frame", 3) })
}

impl Fate {
    /// Draws the fate of a message.
    pub fn draw(seed: u64, rates: Rates, from: &str, to: &str, number: u64) -> Self {
        let draw = |what: &str, limit: u64| hash(seed, &[from, to, what], number) % limit;
        let travel = |what: &str| {
            let late = draw(&format!("late {what}"), 10_000) < rates.late;
            let millis = if late { draw(&format!("how late {what}"), 20_000) } else { draw(what, 5) };
            Duration::from_millis(millis)
        };
        let mut fate = Self { request_delay: travel("request"), answer_delay: travel("answer"), ..Self::default() };
        let mut left = draw("fate", 10_000);
        let mut is = |rate: u64| {
            let hit = left < rate;
            left = if hit { u64::MAX } else { left.saturating_sub(rate) };
            hit
        };
        if is(rates.lost) {
            fate.request = Loss::Broken;
        } else if is(rates.silent) {
            fate.request = Loss::Silent;
        } else if is(rates.answer_lost) {
            fate.answer = Loss::Broken;
        } else if is(rates.answer_silent) {
            fate.answer = Loss::Silent;
        }
        let stream = draw("stream", 10_000);
        let after = draw("frames", 20);
        if stream < rates.cut {
            fate.stream = Some((after, Loss::Broken));
        } else if stream < rates.cut + rates.stalled {
            fate.stream = Some((after, Loss::Silent));
        }
        fate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fate_follows_from_the_message_alone() {
        let rates = Rates {
            late: 50,
            lost: 500,
            silent: 500,
            answer_lost: 500,
            answer_silent: 500,
            cut: 500,
            stalled: 500,
            frame_late: 0,
        };
        let draw = |number| Fate::draw(7, rates, "a-0", "etcd-0", number);
        assert_eq!(draw(3), draw(3));
        let fates: Vec<Fate> = (0..2000).map(draw).collect();
        for loss in [Loss::Broken, Loss::Silent] {
            assert!(fates.iter().filter(|fate| fate.request == loss).count() > 50);
            assert!(fates.iter().filter(|fate| fate.answer == loss).count() > 50);
            assert!(fates.iter().filter(|fate| fate.stream.is_some_and(|(_, how)| how == loss)).count() > 50);
        }
        let quiet = Fate::draw(7, Rates::default(), "a-0", "etcd-0", 3);
        assert_eq!((quiet.request, quiet.answer, quiet.stream), (Loss::None, Loss::None, None));
    }
}
