//! Durations of the command line: `20s`, `1m30s`, or a plain number of seconds.
//!
//! Owns their form. Refuses to know what waits so long.

use std::time::Duration;

/// Nobody waits longer for a command.
const LONGEST: Duration = Duration::from_secs(30 * 86_400);

/// Parses a duration. jiff reads the form of Go and kubectl; a number alone means seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<u64>() {
        return within_bounds(Duration::from_secs(seconds));
    }
    let parsed = text.parse::<jiff::SignedDuration>().ok();
    let duration = parsed.and_then(|duration| Duration::try_from(duration).ok());
    let duration =
        duration.ok_or_else(|| "want a number with a unit, such as 20s or 1m30s, or a number of seconds".to_owned())?;
    within_bounds(duration)
}

fn within_bounds(duration: Duration) -> Result<Duration, String> {
    if duration <= LONGEST { Ok(duration) } else { Err("want at most 30 days".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_the_form_of_kubectl_or_are_seconds() {
        for (text, milliseconds) in
            [("20", 20_000), ("20s", 20_000), ("1m30s", 90_000), ("500ms", 500), ("0", 0), ("2h", 7_200_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for odd in ["18446744073709551615", "", "soon", "-5s", "5 apples", "s"] {
            assert!(duration(odd).is_err(), "{odd}");
        }
    }
}
