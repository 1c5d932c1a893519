//! Numbers that follow from a seed alone.
//!
//! Owns the generator and the hash that decide every draw of a run. Refuses to know what is drawn. The generator is
//! SplitMix64 (Steele, Lea and Flood, 2014): one addition and two multiplications, equal on every machine.

const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A number that depends on all of these and on nothing else.
pub fn hash(seed: u64, parts: &[&str], number: u64) -> u64 {
    let mut state = mix(seed ^ GAMMA);
    for part in parts {
        for byte in part.bytes().chain([0xff]) {
            state = mix(state ^ u64::from(byte)).wrapping_add(GAMMA);
        }
    }
    mix(state ^ number)
}

/// A generator.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// A generator for one purpose of a seed: purposes do not disturb each other.
    pub fn new(seed: u64, purpose: &str) -> Self {
        Self(hash(seed, &[purpose], 0))
    }

    /// Any number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        mix(self.0)
    }

    /// A number below the limit; 0 if the limit is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        if limit == 0 { 0 } else { (self.draw() >> 11) % limit }
    }

    /// A number from the first to the last, both included.
    pub fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last - first + 1)
    }

    /// True in so many of a thousand cases.
    pub fn permille(&mut self, of_thousand: u64) -> bool {
        self.below(1000) < of_thousand
    }

    /// A fraction from 0 to 1.
    pub fn fraction(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// One of them; `None` of nothing.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        let at = self.below(of.len() as u64) as usize;
        of.get(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_and_a_purpose_give_the_same_numbers_and_others_give_others() {
        let draws = |seed, purpose| {
            let mut dice = Dice::new(seed, purpose);
            (0..4).map(|_| dice.draw()).collect::<Vec<_>>()
        };
        assert_eq!(draws(7, "plan"), draws(7, "plan"));
        assert_ne!(draws(7, "plan"), draws(8, "plan"));
        assert_ne!(draws(7, "plan"), draws(7, "wire"));
        assert_ne!(hash(1, &["ab", "c"], 0), hash(1, &["a", "bc"], 0));
    }

    #[test]
    fn draws_stay_within_their_limits() {
        let mut dice = Dice::new(1, "limits");
        for _ in 0..1000 {
            assert!(dice.below(3) < 3);
            assert!((5..=9).contains(&dice.between(5, 9)));
            assert!((0.0..1.0).contains(&dice.fraction()));
        }
        assert_eq!((dice.below(0), dice.permille(0), dice.permille(1000)), (0, false, true));
        assert_eq!(dice.pick::<u8>(&[]), None);
    }
}
