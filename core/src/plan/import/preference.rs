//! LocalFirst: whether instances of other clusters are endpoints, by the number of those of this cluster.
//!
//! Owns the rule on numbers (`docs/decisions/0043`): others come at once where too few of this cluster are there, and
//! leave a while after enough are back. Refuses to know records and endpoints: [`super::others`] counts them.

use jiff::SignedDuration;

use crate::Timestamp;

/// The time that instances of other clusters stay after enough of this cluster are back.
pub const STAY: SignedDuration = SignedDuration::from_secs(30);
/// The first wait for a plan that adds none of this cluster; each further one is as long as all before it together.
const ANOTHER_PLAN: SignedDuration = SignedDuration::from_secs(1);

/// Everything that the rule rests on.
#[derive(Clone, Copy, Debug)]
pub struct Input {
    /// The instances of this cluster that are enough.
    pub min_local: usize,
    /// The instances of this cluster.
    pub local: usize,
    /// Whether endpoints of other clusters are in our slices now.
    pub others_are_there: bool,
    /// Whether the plan adds an endpoint of this cluster.
    pub adds_local: bool,
    /// Whether this process leads, and knows the pods as they are: nothing leaves without that.
    pub judges: bool,
    /// See [`Decision::since`], of the plan before.
    pub since: Option<Timestamp>,
    pub now: Timestamp,
}

/// The instances of other clusters that are endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    All,
    /// The ones that our slices hold now.
    Present,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    pub others: Others,
    /// The time since which enough of this cluster are there, while others are there too.
    pub since: Option<Timestamp>,
    pub requeue_at: Option<Timestamp>,
}

pub fn decide(input: &Input) -> Decision {
    let decided = |others| Decision { others, since: None, requeue_at: None };
    if input.local < input.min_local {
        return decided(Others::All);
    }
    if !input.others_are_there {
        return decided(Others::None);
    }
    if !input.judges {
        return decided(Others::Present);
    }
    let since = input.since.unwrap_or(input.now);
    let due = since + STAY;
    let stay = |until| Decision { others: Others::Present, since: Some(since), requeue_at: Some(until) };
    if input.now < due {
        stay(due)
    } else if input.adds_local {
        // Where nothing is written, every plan adds the same.
        stay(input.now + input.now.duration_since(due).max(ANOTHER_PLAN))
    } else {
        Decision { since: Some(since), ..decided(Others::None) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    /// Two are enough, three are there, and others too.
    fn input(now: i64) -> Input {
        Input {
            min_local: 2,
            local: 3,
            others_are_there: true,
            adds_local: false,
            judges: true,
            since: Some(at(100)),
            now: at(now),
        }
    }

    fn decision(others: Others, since: Option<i64>, requeue_at: Option<i64>) -> Decision {
        Decision { others, since: since.map(at), requeue_at: requeue_at.map(at) }
    }

    #[test]
    fn fewer_than_enough_let_others_in_at_once_and_forget_the_wait() {
        for judges in [true, false] {
            for others_are_there in [true, false] {
                let few = Input { local: 1, judges, others_are_there, ..input(200) };
                assert_eq!(decide(&few), decision(Others::All, None, None));
            }
        }
        assert_eq!(decide(&Input { local: 2, ..input(200) }).others, Others::None, "just enough");
        assert_eq!(decide(&Input { local: 0, min_local: 1, ..input(200) }).others, Others::All);
    }

    #[test]
    fn others_that_are_not_there_do_not_come_while_enough_are() {
        let away = Input { others_are_there: false, since: None, ..input(200) };
        assert_eq!(decide(&away), decision(Others::None, None, None));
        assert_eq!(decide(&Input { judges: false, ..away }), decision(Others::None, None, None));
    }

    #[test]
    fn others_stay_for_30_s_after_enough_are_back() {
        assert_eq!(decide(&Input { since: None, ..input(100) }), decision(Others::Present, Some(100), Some(130)));
        assert_eq!(decide(&input(129)), decision(Others::Present, Some(100), Some(130)));
        assert_eq!(decide(&input(130)), decision(Others::None, Some(100), None));
        assert_eq!(decide(&input(200)), decision(Others::None, Some(100), None), "nobody wrote it");
    }

    #[test]
    fn the_30_s_begin_anew_after_a_drop_and_with_each_process() {
        let dropped = decide(&Input { local: 1, ..input(129) });
        assert_eq!(decide(&Input { since: dropped.since, ..input(140) }).requeue_at, Some(at(170)));
        assert_eq!(decide(&Input { since: None, ..input(500) }), decision(Others::Present, Some(500), Some(530)));
    }

    #[test]
    fn none_leaves_in_a_plan_that_adds_one_of_this_cluster() {
        let adds = |now| decide(&Input { adds_local: true, ..input(now) });
        assert_eq!(adds(120), decision(Others::Present, Some(100), Some(130)));
        assert_eq!(adds(130), decision(Others::Present, Some(100), Some(131)));
        assert_eq!(adds(131), decision(Others::Present, Some(100), Some(132)));
        assert_eq!(adds(140), decision(Others::Present, Some(100), Some(150)), "the waits double");
    }

    #[test]
    fn none_leaves_where_nobody_judges_and_no_time_counts_there() {
        assert_eq!(decide(&Input { judges: false, ..input(200) }), decision(Others::Present, None, None));
    }
}
