//! Checks of an etcd before anything is installed: no cluster is needed, and no ServiceRegistry.
//!
//! Owns the advice for each finding, in the words of the command line. Refuses to write: a permission is tried by a
//! transaction that cannot succeed.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use twinspan_core::codec::{Format, Layout};
use twinspan_core::model::{Content, RawRecord};

use super::finding::{Finding, Findings, Level};
use super::versions;
use crate::registry::etcd::{EtcdConnector, Member, Settings, TlsSettings};
use crate::registry::{RegistryError, are_two_etcds};

/// A slower round trip is noticeable in each sync; etcd's own heartbeat is 100 ms.
const SLOW_MILLISECONDS: u128 = 100;
/// Names that are listed for each format.
const NAMED: usize = 5;
/// The fence's prefix, where a ServiceRegistry names no other.
const FENCE: &str = "twinspan/";
/// A database that is so full deserves attention, in percent of its quota.
const FULL_PERCENT: i64 = 80;

/// The reason why there is nothing to connect with.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("cannot read {path}: {source}", path = path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("the password in {0} is not UTF-8")]
    Password(String),
    #[error("--etcd wants a URL that begins with http:// or https://, such as https://etcd-0:2379")]
    Scheme,
    #[error("leave user and password out of --etcd, and give them with --etcd-user and --password-file")]
    UserInUrl,
}

/// The way to an etcd.
#[derive(Clone, PartialEq, Eq)]
pub struct EtcdSettings(Settings);

impl fmt::Debug for EtcdSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl EtcdSettings {
    /// Reads the files. `client` is a certificate and its key, `user` a name and the file of the password.
    ///
    /// # Errors
    /// A file cannot be read, or an endpoint is no URL.
    pub fn read(
        endpoints: &[String],
        ca: Option<&Path>,
        client: Option<(PathBuf, PathBuf)>,
        server_name: Option<String>,
        user: Option<(String, PathBuf)>,
    ) -> Result<Self, SettingsError> {
        for endpoint in endpoints {
            let rest = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
            match rest {
                None | Some("") => return Err(SettingsError::Scheme),
                Some(rest) if rest.contains('@') => return Err(SettingsError::UserInUrl),
                Some(_) => {}
            }
        }
        let file =
            |path: &Path| std::fs::read(path).map_err(|source| SettingsError::File { path: path.to_owned(), source });
        let ca = ca.map(file).transpose()?;
        let identity = client.map(|(cert, key)| Ok((file(&cert)?, file(&key)?))).transpose()?;
        let user = user.map(|(name, path)| {
            let text =
                String::from_utf8(file(&path)?).map_err(|_| SettingsError::Password(path.display().to_string()))?;
            Ok((name, text.trim_end_matches(['\r', '\n']).to_owned()))
        });
        let tls = TlsSettings { ca, identity, server_name };
        let tls = (tls != TlsSettings::default()).then_some(tls);
        Ok(Self(Settings { endpoints: endpoints.to_vec(), tls, user: user.transpose()? }))
    }
}

/// Checks every endpoint by itself.
pub async fn examine_etcd(settings: EtcdSettings) -> Vec<Finding> {
    let settings = settings.0;
    let connector = EtcdConnector::new(settings.clone());
    let (mut all, mut first) = (Vec::new(), None);
    for endpoint in &settings.endpoints {
        let mut findings = Findings::about(endpoint);
        match connector.member(endpoint).await {
            Err(error) => findings.add(Level::Fail, advice(&error)),
            Ok(member) => {
                security(endpoint, &settings, &mut findings);
                state(&member, &mut findings);
                contents(&connector, endpoint, &mut findings).await;
                if are_two_etcds(member.cluster_id, *first.get_or_insert(member.cluster_id)) {
                    findings
                        .add(Level::Fail, "it belongs to another etcd cluster than the first one; name those of one");
                }
            }
        }
        all.extend(findings.all);
    }
    all
}

/// The error, with what to do about it on the command line.
fn advice(error: &RegistryError) -> String {
    match error {
        RegistryError::Unreachable(why) => format!("it does not answer ({why}); check the URL and the network between"),
        RegistryError::Timeout { seconds, .. } => {
            format!("it did not answer within {seconds} s; check its health and the network between")
        }
        RegistryError::TlsFailed(why) => format!("TLS failed ({why}); check --ca, --cert, --key and --server-name"),
        RegistryError::AuthFailed(why) => format!("it refuses the user ({why}); check --etcd-user and --password-file"),
        RegistryError::PermissionDenied(why) => format!("the user may not do this ({why}); grant it a role"),
        error => error.to_string(),
    }
}

fn security(endpoint: &str, settings: &Settings, findings: &mut Findings<'_>) {
    let has_certificate = settings.tls.as_ref().is_some_and(|tls| tls.identity.is_some());
    match (endpoint.starts_with("https://"), &settings.user) {
        (true, None) if !has_certificate => findings.add(
            Level::Warn,
            "TLS: its certificate is accepted; it lets a client in without user and certificate, so whoever reaches it may read, and write where no user is needed",
        ),
        (true, _) => findings.add(Level::Ok, "TLS: its certificate is accepted"),
        (false, Some(_)) => findings.add(Level::Warn, "not encrypted: the password goes in clear; use https://"),
        (false, None) => findings.add(Level::Warn, "not encrypted: whoever is on the way reads and changes records; use https://"),
    }
    if let Some((user, _)) = &settings.user {
        findings.add(Level::Ok, format!("accepts user {user}"));
    }
}

fn state(member: &Member, findings: &mut Findings<'_>) {
    if let Some(complaint) = versions::complaint(&member.version) {
        findings.add(Level::Warn, complaint);
    }
    if !member.has_leader {
        findings.add(Level::Fail, "it has no leader, so nothing can be written; look after the other members");
    }
    if member.is_learner {
        findings.add(Level::Fail, "it is a learner, which answers no client; name a voting member");
    }
    for alarm in &member.alarms {
        let what = "compact and defragment it, then etcdctl alarm disarm";
        findings.add(Level::Fail, format!("alarm: {alarm}; {what}"));
    }
    let mebibytes = |bytes: i64| bytes / (1024 * 1024);
    let (size, in_use) = (mebibytes(member.size), mebibytes(member.in_use));
    let text = format!("database {size} MiB, {in_use} MiB of them in use");
    match member.quota {
        quota if quota <= 0 => findings.add(Level::Ok, text),
        quota => {
            let full = member.size.saturating_mul(100) / quota;
            let level = if full >= FULL_PERCENT { Level::Warn } else { Level::Ok };
            findings.add(level, format!("{text}, {full} % of its quota of {} MiB", mebibytes(quota)));
        }
    }
}

/// The formats under the prefixes that frameworks use by themselves, and what our user may do there.
async fn contents(connector: &EtcdConnector, endpoint: &str, findings: &mut Findings<'_>) {
    let (mut found, mut empty, mut denied) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    for (format, layout, root) in known() {
        match connector.sample(endpoint, &root).await {
            Ok((0, _)) => drop(empty.insert(format!("{root:?}"))),
            Ok((count, page)) => {
                found.push(root.clone());
                let (level, text) = described(format, &layout, &root, count, &page);
                findings.add(level, text);
            }
            Err(RegistryError::PermissionDenied(_) | RegistryError::AuthFailed(_)) => {
                denied.insert(format!("{root:?}"));
            }
            Err(error) => findings.add(Level::Fail, format!("{root:?}: {}", advice(&error))),
        }
    }
    let listed = |all: BTreeSet<String>| all.into_iter().collect::<Vec<_>>().join(", ");
    if !empty.is_empty() {
        let why = "go-zero, gRPC and an empty prefix have no place that can be told without a name";
        findings.add(Level::Ok, format!("no keys under {}; {why}", listed(empty)));
    }
    if !denied.is_empty() {
        let level = if found.is_empty() { Level::Warn } else { Level::Ok };
        findings
            .add(level, format!("may not read {}; grant it read and write on the prefix that is used", listed(denied)));
    }
    let mut keys: Vec<String> = found.iter().map(|root| format!("{root}twinspan-doctor")).collect();
    keys.push(format!("{FENCE}twinspan-doctor"));
    match connector.examine(endpoint, &[], &keys).await {
        Err(error) => findings.add(Level::Fail, advice(&error)),
        Ok(examined) => {
            let median = examined.round_trips.get(examined.round_trips.len() / 2).copied().unwrap_or_default();
            let level = if median.as_millis() > SLOW_MILLISECONDS { Level::Warn } else { Level::Ok };
            let (version, micros) = (&examined.status.version, median.as_micros());
            findings.add(level, format!("etcd {version} answers in {}.{} ms", micros / 1000, micros % 1000 / 100));
            for (key, answer) in &examined.write {
                match answer {
                    Ok(()) => findings.add(Level::Ok, format!("may write {key:?}")),
                    Err(error) => findings.add(Level::Warn, format!("may not write {key:?}: {}", advice(error))),
                }
            }
        }
    }
}

/// The places that frameworks use by themselves, with and without a leading slash.
fn known() -> Vec<(Format, Layout, String)> {
    let mut all = Vec::new();
    let mut seen = BTreeSet::new();
    for format in Format::ALL.iter().copied().filter(|format| !format.default_prefix().is_empty()) {
        for leading_slash in [false, true] {
            let layout = Layout::new(format, format.default_prefix()).with_leading_slash(leading_slash);
            if let Some(root) = layout.root().filter(|root| seen.insert(root.clone())) {
                all.push((format, layout, root));
            }
        }
    }
    all
}

fn described(format: Format, layout: &Layout, root: &str, count: usize, page: &[RawRecord]) -> (Level, String) {
    let read: Vec<_> = page.iter().map(|raw| layout.decode(raw)).collect();
    let parsed = read.iter().filter(|record| matches!(record.content, Content::Registered { .. })).count();
    let names: BTreeSet<String> = page
        .iter()
        .filter_map(|raw| layout.split_key(&raw.key))
        .map(|(name, _)| String::from_utf8_lossy(name).escape_debug().to_string())
        .collect();
    let first = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    let more = if names.len() > NAMED || count > page.len() { ", …" } else { "" };
    let slash =
        if root.starts_with('/') && !format.default_prefix().starts_with('/') { "; set spec.leadingSlash" } else { "" };
    let text = format!("{}: {count} keys under {root:?}, of {first}{more}{slash}", format.as_str());
    if parsed == page.len() {
        (Level::Ok, text)
    } else {
        let wrong = page.len() - parsed;
        (Level::Warn, format!("{text}; {wrong} of the first {} cannot be parsed as this format", page.len()))
    }
}

#[cfg(test)]
mod tests {
    use twinspan_core::model::LeaseId;

    use super::*;

    #[test]
    fn settings_come_from_files_and_no_password_from_a_url() {
        let read = |endpoint: &str, ca: Option<&Path>| {
            EtcdSettings::read(&[endpoint.to_owned()], ca, None, None, None).map_err(|error| error.to_string())
        };
        assert!(read("https://etcd:2379", None).is_ok());
        assert!(read("etcd:2379", None).is_err_and(|error| error.contains("https://")));
        assert!(read("http://", None).is_err());
        assert!(read("http://u:secret@etcd:2379", None).is_err_and(|error| !error.contains("secret")));
        let missing = Path::new("/nonexistent/ca.crt");
        assert!(read("https://etcd:2379", Some(missing)).is_err_and(|error| error.contains("/nonexistent/ca.crt")));
    }

    #[test]
    fn what_is_found_is_counted_named_and_parsed() {
        let (_, layout, root) = known().into_iter().find(|(format, ..)| *format == Format::Kitex).unwrap();
        let raw = |key: &str, value: &str| RawRecord {
            key: format!("{root}{key}").into(),
            value: value.into(),
            mod_revision: 1,
            lease: LeaseId::NONE,
        };
        let good = raw("user/10.0.0.1:80", r#"{"network":"tcp","address":"10.0.0.1:80","weight":10,"tags":null}"#);
        let (level, text) = described(Format::Kitex, &layout, &root, 1, std::slice::from_ref(&good));
        assert_eq!((level, text.as_str()), (Level::Ok, "Kitex: 1 keys under \"kitex/registry-etcd/\", of user"));
        let (level, text) = described(Format::Kitex, &layout, &root, 7, &[good, raw("odd/x", "{")]);
        assert_eq!(level, Level::Warn);
        assert!(text.contains("of odd, user, …; 1 of the first 2 cannot be parsed"), "{text}");
        let roots: Vec<String> = known().into_iter().map(|(.., root)| root).collect();
        assert!(roots.contains(&"/kitex/registry-etcd/".to_owned()), "{roots:?}");
    }

    #[test]
    fn alarms_a_full_database_and_a_member_without_a_leader_are_told() {
        let well = Member {
            version: "3.7.3".to_owned(),
            has_leader: true,
            size: 1 << 20,
            quota: 1 << 31,
            ..Member::default()
        };
        let told = |member: &Member| {
            let mut findings = Findings::about("etcd");
            state(member, &mut findings);
            findings.all.into_iter().filter(|finding| finding.level > Level::Ok).map(|f| f.text).collect::<Vec<_>>()
        };
        assert_eq!(told(&well), Vec::<String>::new());
        let full = Member { size: 1 << 31, alarms: vec!["memberID:1 alarm:NOSPACE".to_owned()], ..well.clone() };
        assert!(
            told(&full)[0].contains("NOSPACE") && told(&full)[1].contains("100 % of its quota"),
            "{:?}",
            told(&full)
        );
        assert_eq!(told(&Member { has_leader: false, ..well.clone() }).len(), 1);
        assert_eq!(told(&Member { version: "3.5.0".to_owned(), ..well }).len(), 1);
    }
}
