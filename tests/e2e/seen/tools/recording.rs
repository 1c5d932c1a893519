//! A recording of everything that `parity`, `explain`, `plan` and `status` print for a fixed scene with `-o json`.
//!
//! Owns the files `recording/*.json` and the byte-for-byte comparison with them: a change of the code that should
//! change nothing for users leaves them as they are. [`scene`] sets the scene; [`placeholders`] stand for values that
//! differ between runs. Refuses to know the scene.
//!
//! `TWINSPAN_RECORD=1 cargo test --test e2e tools::recording` writes the files anew. Review the difference before you
//! commit it.

mod placeholders;
mod scene;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use futures::{StreamExt, TryStreamExt};
use twinspan_testbed::{Bed, TwinspanOptions, eventually, repository};

use super::run;
use crate::harness::{SOON, Suite, TWINSPAN};
use placeholders::{Placeholders, Replaced};
use scene::Questions;

/// If this variable is set, the recording is written instead of compared.
const RECORD: &str = "TWINSPAN_RECORD";
/// The commands; each has a file.
const COMMANDS: [&str; 4] = ["explain", "parity", "plan", "status"];
/// The number of commands that run concurrently.
const AT_ONCE: usize = 3;
/// The time between two recordings that show that the scene has settled.
const SETTLING: Duration = Duration::from_secs(5);

/// The text of one answer, and the number of replaced values of each sort.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    text: String,
    replaced: Replaced,
}

/// The answers of each command, in the order of the questions.
type Answers = BTreeMap<&'static str, Vec<Answer>>;

pub async fn recording_is_as_before(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.own_bed().await?;
    let twinspan = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    twinspan.ready().await?;
    let writes = std::env::var_os(RECORD).is_some();
    let mut recorded = BTreeMap::new();
    for command in COMMANDS.into_iter().filter(|_| !writes) {
        recorded.insert(command, std::fs::read_to_string(file(command)).context("no recording")?);
    }

    let mut scene = scene::set(bed).await?;
    let mut answers = act(bed, &scene.placeholders, &scene.questions, &recorded).await?;
    scene.lose_registries().await?;
    for (command, more) in act(bed, &scene.placeholders, &scene.questions, &recorded).await? {
        answers.entry(command).or_default().extend(more);
    }
    for (command, answers) in &answers {
        let text = whole(answers)?;
        let Some(recorded) = recorded.get(command) else {
            std::fs::write(file(command), text)?;
            continue;
        };
        let found = bed.dir().join(format!("recorded-{command}.json"));
        std::fs::write(&found, &text)?;
        equal(command, recorded, &text).with_context(|| format!("all that was found is in {}", found.display()))?;
    }
    scene.nothing_foreign_was_touched().await
}

/// Asks everything once the scene has settled. If there is a recording, the answers have some time to match it.
async fn act(
    bed: &Bed,
    placeholders: &Placeholders,
    questions: &Questions,
    recorded: &BTreeMap<&str, String>,
) -> Result<Answers> {
    if recorded.is_empty() {
        return eventually("the scene has settled", SOON * 8, || async {
            let before = all(questions, |_, args| answer(bed, placeholders, args)).await?;
            tokio::time::sleep(SETTLING).await;
            let after = all(questions, |_, args| answer(bed, placeholders, args)).await?;
            for (command, answers) in &before {
                equal(command, &whole(answers)?, &whole(&after[command])?)?;
            }
            Ok(after)
        })
        .await;
    }
    let settled_by = Instant::now() + SOON * 2;
    all(questions, |command, args| settled(bed, placeholders, args, &recorded[command], settled_by)).await
}

async fn all<'a, F, Fut>(questions: &'a Questions, ask: F) -> Result<Answers>
where
    F: Fn(&'static str, &'a [String]) -> Fut,
    Fut: Future<Output = Result<Answer>>,
{
    let mut answers = Answers::new();
    for (command, lines) in questions {
        let asked: Vec<Fut> = lines.iter().map(|args| ask(command, args)).collect();
        answers.insert(command, futures::stream::iter(asked).buffered(AT_ONCE).try_collect().await?);
    }
    Ok(answers)
}

/// The recorded answer, or else the last one, so that the file shows the difference.
async fn settled(
    bed: &Bed,
    placeholders: &Placeholders,
    args: &[String],
    recorded: &str,
    by: Instant,
) -> Result<Answer> {
    let last = Mutex::new(None);
    let waited = eventually("the answer is the recorded one", by.saturating_duration_since(Instant::now()), || async {
        let answer = answer(bed, placeholders, args).await?;
        let same = recorded.contains(&answer.text);
        *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
        ensure!(same, "it is not");
        Ok(())
    })
    .await;
    let last = last.into_inner().unwrap_or_else(PoisonError::into_inner);
    last.ok_or_else(|| waited.err().unwrap_or_else(|| anyhow!("no answer")))
}

/// The command line, the exit code and both outputs of one command. Standard output is kept as it was printed.
async fn answer(bed: &Bed, placeholders: &Placeholders, args: &[String]) -> Result<Answer> {
    let mut line: Vec<&str> = args.iter().map(String::as_str).collect();
    line.extend(["-o", "json"]);
    let (code, out, errors) = run(bed, &line).await?;
    let mut replaced = Replaced::new();
    let mut normal = |text: &str| placeholders.replace(text, &mut replaced);
    let (line, out, errors) = (normal(&line.join(" ")), normal(out.trim_end()), normal(errors.trim_end()));
    let out = if out.is_empty() { "null" } else { &out };
    serde_json::from_str::<serde_json::Value>(out).with_context(|| format!("no JSON: {line}: {out}"))?;
    let (line, errors) = (serde_json::to_string(&line)?, serde_json::to_string(&errors)?);
    let text = format!("{{\"command\": {line}, \"exit\": {code}, \"errors\": {errors}, \"output\":\n{out}\n}}");
    Ok(Answer { text, replaced })
}

/// The text of a file. It includes the number of replaced values, so that the placeholders cannot hide more than
/// before.
fn whole(answers: &[Answer]) -> Result<String> {
    let mut replaced = Replaced::new();
    for (sort, number) in answers.iter().flat_map(|answer| &answer.replaced) {
        *replaced.entry(sort).or_default() += number;
    }
    let texts: Vec<&str> = answers.iter().map(|answer| answer.text.as_str()).collect();
    let replaced = serde_json::to_string(&replaced)?;
    Ok(format!("{{\"replaced\": {replaced},\n\"answers\": [\n{}\n]}}\n", texts.join(",\n")))
}

fn file(command: &str) -> PathBuf {
    repository().join(Path::new(file!()).with_extension("")).join(format!("{command}.json"))
}

/// Compares byte for byte; the error has the first lines that differ.
fn equal(command: &str, recorded: &str, found: &str) -> Result<()> {
    let (before, now): (Vec<&str>, Vec<&str>) = (recorded.lines().collect(), found.lines().collect());
    // The numbers at the head differ with every change, and say less.
    let differs = |n: &usize| before.get(*n) != now.get(*n);
    let Some(first) = (1..before.len().max(now.len())).chain([0]).find(differs) else {
        ensure!(recorded == found, "{command}.json differs in its line ends");
        return Ok(());
    };
    let part = |all: &[&str]| {
        all.iter().skip(first.saturating_sub(6)).take(14).map(|line| format!("{line}\n")).collect::<String>()
    };
    bail!("{command}.json differs at line {}: recorded\n{}now\n{}", first + 1, part(&before), part(&now))
}
