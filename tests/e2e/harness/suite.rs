//! One run of all stories.
//!
//! Owns the test bed that stories share, which it starts for the first story that needs it, and the end of all beds.
//! Refuses to know what is in a bed besides one Twinspan.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;
use libtest_mimic::{Failed, Trial};
use tokio::runtime::Runtime;
use tokio::sync::{OnceCell, Semaphore};
use twinspan_testbed::{Bed, Releases, Twinspan, TwinspanOptions};

use super::TWINSPAN;

/// The directory of the bed that stories share.
pub(super) const SHARED: &str = "shared";
/// Control planes that start concurrently: more would only be slower, and starve the stories that run.
const STARTING: usize = 2;

type Story = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// The parts that stories share, started by the first that needs them.
pub struct Shared {
    pub bed: Bed,
    pub twinspan: Twinspan,
}

pub struct Suite {
    runtime: Runtime,
    shared: OnceCell<Shared>,
    dir: PathBuf,
    beds: AtomicU32,
    starting: Semaphore,
}

impl Suite {
    pub fn new() -> Arc<Self> {
        let runtime = Runtime::new().expect("a tokio runtime");
        let dir = std::env::temp_dir().join(format!("twinspan-e2e-{}", namespace_pid()));
        let (beds, starting) = (AtomicU32::new(0), Semaphore::new(STARTING));
        Arc::new(Self { runtime, shared: OnceCell::new(), dir, beds, starting })
    }

    /// A story in the normal run.
    pub fn story<F, Fut>(self: &Arc<Self>, name: &str, story: F) -> Trial
    where
        F: FnOnce(Arc<Suite>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        let suite = self.clone();
        Trial::test(name, move || suite.clone().run(Box::pin(story(suite))))
    }

    /// A story that takes minutes by its nature.
    pub fn long_story<F, Fut>(self: &Arc<Self>, name: &str, story: F) -> Trial
    where
        F: FnOnce(Arc<Suite>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        self.story(name, story).with_ignored_flag(true)
    }

    fn run(self: Arc<Self>, story: Story) -> Result<(), Failed> {
        self.runtime.block_on(story).map_err(|error| Failed::from(format!("{error:#}")))
    }

    /// The shared bed with one Twinspan.
    pub async fn shared(&self) -> Result<&Shared> {
        self.shared
            .get_or_try_init(|| async {
                let bed = Bed::start(&self.dir.join(SHARED)).await?;
                let twinspan = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
                twinspan.ready().await?;
                Ok(Shared { bed, twinspan })
            })
            .await
    }

    /// A bed that the story may break, without a Twinspan.
    pub async fn own_bed(&self) -> Result<Bed> {
        self.own_bed_of(Releases::NEWEST).await
    }

    /// The same of other releases.
    pub async fn own_bed_of(&self, releases: Releases) -> Result<Bed> {
        let _starts = self.starting.acquire().await?;
        let number = self.beds.fetch_add(1, Ordering::Relaxed);
        Bed::start_of(&self.dir.join(format!("own-{number}")), releases).await
    }

    /// The directory of all files of all beds.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Takes everything down, and keeps the logs if a story failed.
    pub fn finish(&self, failed: bool) {
        if failed {
            eprintln!("e2e: logs are kept in {}", self.dir.display());
        } else {
            // A directory that cannot be removed does no harm.
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

fn namespace_pid() -> u32 {
    twinspan_testbed::namespace::outer_pid().unwrap_or_else(|_| std::process::id())
}
