//! The name of a story.
//!
//! Owns its derivation from the module and the function, so that no other place repeats it. Refuses to know what a
//! story does.

/// Writes `fn stories`, which returns one trial for each function that is listed, named `module::function`.
///
/// - `stories![pods_come_and_go, reasons::every_reason_is_named]`: stories of the normal run; a function may be in a
///   child module.
/// - `long: …`: stories that take minutes by their nature.
/// - `more: …`: functions that return trials themselves, for names that a function cannot have.
/// - `modules: …`: child modules whose stories are added. They need a `mod` line as well, because rustfmt does not
///   follow one that a macro writes. If a module is missing here, the compiler warns that its `stories` is never used.
macro_rules! stories {
    (long: $($rest:tt)+) => { $crate::harness::stories!(@sections ; long: $($rest)+); };
    (modules: $($rest:tt)+) => { $crate::harness::stories!(@sections ; modules: $($rest)+); };
    (@sections
        $($story:path),*
        $(; long: $($long:path),+)?
        $(; more: $($more:path),+)?
        $(; modules: $($module:ident),+)?
        $(,)?
    ) => {
        pub(crate) fn stories(suite: &std::sync::Arc<$crate::harness::Suite>) -> Vec<libtest_mimic::Trial> {
            let trials: Vec<Vec<libtest_mimic::Trial>> = vec![
                vec![$(suite.story(&$crate::harness::story_name(module_path!(), stringify!($story)), $story)),*],
                $(vec![$(suite.long_story(&$crate::harness::story_name(module_path!(), stringify!($long)), $long)),+],)?
                $($($more(suite),)+)?
                $($($module::stories(suite),)+)?
            ];
            trials.into_iter().flatten().collect()
        }
    };
    ($($rest:tt)+) => { $crate::harness::stories!(@sections $($rest)+); };
}

pub(crate) use stories;

/// `module::function`: the last name of each path.
pub fn story_name(module: &str, function: &str) -> String {
    let last = |path: &str| path.rsplit("::").next().unwrap_or_default().trim().to_owned();
    format!("{}::{}", last(module), last(function))
}
