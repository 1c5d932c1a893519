//! Real programs that look for instances from inside the cluster (`dev/parts/interop`), and the lists that they hear.
//!
//! Owns the place in which such a program runs: the files and the variables of a pod. Refuses to judge a list.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::bed::Bed;
use crate::namespace;
use crate::part::Part;

/// Makes the files of a service account in a mount namespace of its own, and becomes the program. The arguments: the
/// certificate of the API server's authority, the token, the namespace, and the program with its arguments.
const AS_IN_A_POD: &str = r#"
set -e
mount -t tmpfs tmpfs "$(readlink -f /var/run)"
files=/var/run/secrets/kubernetes.io/serviceaccount
mkdir -p "$files"
cp "$1" "$files/ca.crt"
printf %s "$2" > "$files/token"
printf %s "$3" > "$files/namespace"
shift 3
exec "$@"
"#;

/// A program that reads one Service all the time.
#[derive(Debug)]
pub struct Reader {
    part: Part,
}

#[derive(Deserialize)]
struct List {
    event: String,
    #[serde(default)]
    instances: Vec<String>,
    error: Option<String>,
}

impl Reader {
    /// Starts a reader, by the name that the program has for it and the target as that reader spells it.
    pub fn start(bed: &Bed, namespace: &str, kind: &str, target: &str) -> Result<Self> {
        let admin: serde_json::Value = serde_yaml::from_str(&std::fs::read_to_string(&bed.cluster.admin.path)?)?;
        let text = |value: &serde_json::Value| value.as_str().map(ToOwned::to_owned).context("not in the kubeconfig");
        let authority = text(&admin["clusters"][0]["cluster"]["certificate-authority"])?;
        let token = text(&admin["users"][0]["user"]["token"])?;
        let server: SocketAddr = bed.cluster.server().trim_start_matches("https://").parse()?;
        let env = [
            ("KUBERNETES_SERVICE_HOST", server.ip().to_string()),
            ("KUBERNETES_SERVICE_PORT", server.port().to_string()),
        ];
        let mut args: Vec<String> = ["--mount", "--", "sh", "-c", AS_IN_A_POD, "sh"].map(ToOwned::to_owned).into();
        args.extend([authority, token, namespace.to_owned(), namespace::binary("interop")?, "reader".to_owned()]);
        args.extend([format!("-kind={kind}"), format!("-target={target}"), format!("-dns={}", bed.dns.address())]);
        let part = Part::start(&format!("reader-{kind}-{namespace}"), bed.dir(), "unshare", &args, &env)?;
        Ok(Self { part })
    }

    pub fn part(&self) -> &Part {
        &self.part
    }

    /// The last list; none at all, or an error, counts as an empty one.
    pub fn sees(&self) -> Result<BTreeSet<SocketAddr>> {
        self.heard_since(0)?.pop().map_or(Ok(BTreeSet::new()), addresses)
    }

    /// The lists behind a line of the output. An error is none: its client keeps what it has.
    pub fn lists_since(&self, mark: usize) -> Result<Vec<BTreeSet<SocketAddr>>> {
        self.heard_since(mark)?.into_iter().filter(|list| list.error.is_none()).map(addresses).collect()
    }

    fn heard_since(&self, mark: usize) -> Result<Vec<List>> {
        self.part.check_running()?;
        let lists = self.part.lines_since(mark);
        let lists = lists.iter().filter_map(|line| serde_json::from_str::<List>(line).ok());
        Ok(lists.filter(|list| list.event == "list").collect())
    }
}

fn addresses(list: List) -> Result<BTreeSet<SocketAddr>> {
    if list.error.is_some() {
        return Ok(BTreeSet::new());
    }
    list.instances.iter().map(|text| text.parse().with_context(|| format!("not an address: {text}"))).collect()
}
