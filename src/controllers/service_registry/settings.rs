//! Settings of a session: from the spec of a ServiceRegistry and its Secrets.
//!
//! Owns the reasons for which there can be no session. Refuses to start one.

use twinspan_core::model::ObjectKey;
use twinspan_core::plan::service::Incarnation;

use crate::api::conditions::Reason;
use crate::api::{EtcdConnection, FenceMode, RecordScope, ReturnedAs, ServiceRegistry, Tls};
use crate::cluster::view::{ClusterView, Kind};
use crate::registry::etcd::{Settings, TlsSettings};
use crate::registry::handle::Identity;
use crate::registry::incarnation::LastKnown;
use crate::registry::scope::Scope;
use crate::registry::sessions::SessionSettings;

/// The reason why there can be no session, for the `Connected` condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub reason: Reason,
    pub message: String,
}

impl Rejection {
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// Whether everything was listed that makes the settings of a session. It waits for no other kind: leases have to be
/// kept alive, whatever cannot be listed.
pub fn are_known(view: &ClusterView, object: Option<&ServiceRegistry>) -> bool {
    let named = object.is_none_or(|object| object.spec.cluster_id.is_some()) || view.cluster_id().is_some();
    view.has_listed(&[Kind::ServiceRegistry, Kind::Secret]) && (named || view.has_listed(&[Kind::Namespace]))
}

/// # Errors
/// The [`Rejection`] that its status has to tell.
pub fn session_settings(object: &ServiceRegistry, view: &ClusterView) -> Result<SessionSettings, Rejection> {
    let identity = identity(object, view)?;
    sole_cluster_id(view)?;
    let etcd = object.spec.etcd.clone();
    Ok(SessionSettings { identity, connection: connection(&etcd, view)?, etcd })
}

/// The connection with the Secrets as they are now.
///
/// # Errors
/// The [`Rejection`] that its status has to tell.
pub fn connection(etcd: &EtcdConnection, view: &ClusterView) -> Result<Settings, Rejection> {
    Ok(Settings {
        endpoints: etcd.endpoints.clone(),
        tls: etcd.tls.as_ref().map(|tls| tls_settings(tls, view)).transpose()?,
        user: etcd.auth.as_ref().map(|auth| user(&auth.secret_ref.name, view)).transpose()?,
    })
}

/// The identity of its registry. A stand-in has defaults where a field cannot be read, which would mean another one.
///
/// # Errors
/// The [`Rejection`] that its status has to tell.
pub fn identity(object: &ServiceRegistry, view: &ClusterView) -> Result<Identity, Rejection> {
    let unreadable = object.metadata.name.as_ref().and_then(|name| view.unreadable_registries.get(name));
    if let Some(unreadable) = unreadable.filter(|it| !it.has_read(ServiceRegistry::CONNECTION_FIELDS)) {
        return Err(Rejection::new(Reason::NotSupported, unreadable.message()));
    }
    let spec = &object.spec;
    if let (Some(limits), Some(id)) = (&view.reach().limits, &spec.cluster_id)
        && *id != limits.cluster_id
    {
        let message = format!(
            "spec.clusterID is {id}, and the release that serves it in namespaced mode has {}, so that no other release takes its \
             records for its own; remove spec.clusterID",
            limits.cluster_id
        );
        return Err(Rejection::new(Reason::NotSupported, message));
    }
    let Some(cluster_id) = view.cluster_id_of(object) else {
        return Err(Rejection::new(
            Reason::ClusterIDUnknown,
            "there is no namespace kube-system whose UID could name the cluster; set spec.clusterID",
        ));
    };
    Ok(identity_as(object, cluster_id))
}

/// The identity of a registry with this cluster ID.
pub fn identity_as(object: &ServiceRegistry, cluster_id: &str) -> Identity {
    let spec = &object.spec;
    Identity {
        uid: object.metadata.uid.clone().unwrap_or_default(),
        cluster_id: cluster_id.to_owned(),
        layout: spec.layout(),
        ttl_seconds: spec.lease.ttl_seconds.into(),
        fence_prefix: (spec.fence.mode == FenceMode::Epoch).then(|| spec.fence.key_prefix.clone()),
    }
}

/// Refuses a cluster ID of a release in namespaced mode that another release has: each would take the records of the
/// other for its own. Only a status shows it, and the one that wrote it first goes on.
///
/// # Errors
/// The [`Rejection`] that the status has to tell.
pub fn sole_cluster_id(view: &ClusterView) -> Result<(), Rejection> {
    let (Some(limits), ours) = (&view.reach().limits, &view.reach().release) else { return Ok(()) };
    let all = view.service_registries.iter().chain(&view.unserved_registries);
    let mut another = all.filter_map(|(name, object)| {
        let status = object.status.as_ref()?;
        let holder = status.holder.as_ref().filter(|holder| Some(*holder) != ours.as_ref())?;
        (status.cluster_id.as_ref() == Some(&limits.cluster_id)).then_some((name, holder))
    });
    let Some((name, holder)) = another.next() else { return Ok(()) };
    let message = format!(
        "the release in namespace {holder} has the cluster ID {} too, for ServiceRegistry {name}; give this release one of its own \
         (namespaced.clusterID of the chart, --cluster-id)",
        limits.cluster_id
    );
    Err(Rejection::new(Reason::ClusterIDInUse, message))
}

/// The registry that an earlier process met, from its status.
pub fn last_known(object: &ServiceRegistry, view: &ClusterView) -> Option<LastKnown> {
    let (etcd, revision) = object.last_etcd()?;
    let status = view.own_status(object)?;
    let described = status.etcd.as_ref()?;
    let epoch = described.epoch.and_then(|epoch| u64::try_from(epoch).ok());
    let unsettled = status.returned_as.map(|returned| match returned {
        ReturnedAs::ClusterChanged => Incarnation::ClusterChanged,
        ReturnedAs::RolledBack => Incarnation::RolledBack,
    });
    let highest_epoch = described.highest_epoch.and_then(|epoch| u64::try_from(epoch).ok()).unwrap_or_default();
    let incarnation = described.incarnation.clone();
    Some(LastKnown { etcd, revision, incarnation, epoch, highest_epoch, unsettled })
}

/// The scope of the sessions of an earlier process, from the status; `None` before the first one.
pub fn last_scope(object: &ServiceRegistry) -> Option<Scope> {
    let records = object.status.as_ref()?.records.as_ref()?;
    Some(records.scope.map_or(Scope::Everything, |RecordScope::FollowedNames| Scope::FollowedNames))
}

fn tls_settings(tls: &Tls, view: &ClusterView) -> Result<TlsSettings, Rejection> {
    let ca = tls.ca_secret_ref.as_ref().map(|ca| secret(&ca.name, &ca.key, view)).transpose()?;
    let identity = match &tls.client_cert_secret_ref {
        Some(client) => Some((secret(&client.name, "tls.crt", view)?, secret(&client.name, "tls.key", view)?)),
        None => None,
    };
    Ok(TlsSettings { ca, identity, server_name: tls.server_name.clone() })
}

fn user(name: &str, view: &ClusterView) -> Result<(String, String), Rejection> {
    let text = |key: &str| {
        String::from_utf8(secret(name, key, view)?)
            .map_err(|_| Rejection::new(Reason::SecretInvalid, format!("key {key} of Secret {name} is not UTF-8")))
    };
    Ok((text("username")?, text("password")?))
}

fn secret(name: &str, key: &str, view: &ClusterView) -> Result<Vec<u8>, Rejection> {
    let found = view.secrets.range(ObjectKey::new("", "")..).find(|(k, _)| k.name == name);
    let Some((_, secret)) = found else {
        return Err(Rejection::new(
            Reason::SecretNotFound,
            format!("there is no Secret {name} in the operator's namespace; create it"),
        ));
    };
    secret
        .data
        .get(key)
        .cloned()
        .ok_or_else(|| Rejection::new(Reason::SecretInvalid, format!("Secret {name} has no key {key}; add it")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use serde_json::{Value, json};
    use twinspan_core::codec::Format;

    use super::*;
    use crate::cluster::convert::{NamespaceView, SecretView};
    use crate::cluster::reach::Reach;

    fn view() -> ClusterView {
        let mut view = ClusterView::default();
        let namespace =
            NamespaceView { uid: "uid-of-the-cluster".into(), labels: BTreeMap::new(), export: None, deleting: false };
        view.namespaces.insert("kube-system".into(), Arc::new(namespace));
        for (name, keys) in
            [("user", vec!["username", "password"]), ("ca", vec!["ca.crt"]), ("client", vec!["tls.crt"])]
        {
            let data = keys.into_iter().map(|k| (k.to_owned(), k.as_bytes().to_vec())).collect();
            view.secrets.insert(ObjectKey::new("twinspan-system", name), Arc::new(SecretView { data }));
        }
        view
    }

    fn of(spec: &Value) -> Result<SessionSettings, Rejection> {
        let mut whole = json!({"etcd": {"endpoints": ["http://10.0.0.1:2379"]}, "format": "Kitex", "allowed": []});
        for (key, value) in spec.as_object().unwrap() {
            whole[key] = value.clone();
        }
        let object: ServiceRegistry =
            serde_json::from_value(json!({"apiVersion": "twinspan.dev/v1alpha1", "kind": "ServiceRegistry", "metadata": {"name": "main"}, "spec": whole})).unwrap();
        session_settings(&object, &view())
    }

    #[test]
    fn defaults_are_in_force_where_nothing_is_set() {
        let wanted = of(&json!({})).unwrap();
        assert_eq!(wanted.identity.cluster_id, "uid-of-the-cluster");
        assert_eq!(wanted.identity.layout.prefix(), "kitex/registry-etcd");
        assert_eq!(wanted.identity.ttl_seconds, 300);
        assert_eq!(of(&json!({"clusterID": "c1", "prefix": "p"})).unwrap().identity.cluster_id, "c1");
    }

    #[test]
    fn secrets_become_settings_and_what_is_missing_is_named() {
        let etcd = |extra: &Value| {
            let mut etcd = json!({"endpoints": ["https://10.0.0.1:2379"]});
            for (key, value) in extra.as_object().unwrap() {
                etcd[key] = value.clone();
            }
            of(&json!({"etcd": etcd}))
        };
        let good =
            etcd(&json!({"auth": {"secretRef": {"name": "user"}}, "tls": {"caSecretRef": {"name": "ca"}}})).unwrap();
        assert_eq!(good.connection.user, Some(("username".into(), "password".into())));
        assert_eq!(good.connection.tls.unwrap().ca.as_deref(), Some(&b"ca.crt"[..]));
        for (extra, reason, names) in [
            (json!({"auth": {"secretRef": {"name": "nobody"}}}), Reason::SecretNotFound, "nobody"),
            (json!({"auth": {"secretRef": {"name": "ca"}}}), Reason::SecretInvalid, "username"),
            (json!({"tls": {"clientCertSecretRef": {"name": "client"}}}), Reason::SecretInvalid, "tls.key"),
        ] {
            let problem = etcd(&extra).unwrap_err();
            assert_eq!(problem.reason, reason);
            assert!(problem.message.contains(names), "{}", problem.message);
        }
    }

    #[test]
    fn a_reader_takes_the_cluster_id_that_the_holder_tells() {
        let object = |spec: Option<&str>, holder: Option<&str>| -> ServiceRegistry {
            let spec = json!({"etcd": {"endpoints": ["http://10.0.0.1:2379"]}, "format": "Kitex", "allowed": [], "clusterID": spec});
            let status = json!({"holder": holder, "clusterID": "team-a"});
            serde_json::from_value(json!({"metadata": {"name": "main"}, "spec": spec, "status": status})).unwrap()
        };
        let of = |view: &ClusterView, object| session_settings(&object, view).unwrap().identity.cluster_id;
        assert_eq!(of(&view(), object(None, Some("team-a"))), "team-a");
        assert_eq!(of(&view(), object(Some("c1"), Some("team-a"))), "c1");
        assert_eq!(of(&view(), object(None, None)), "uid-of-the-cluster");
        let mut release = view();
        release.set_reach(Reach { release: Some("twinspan".into()), ..Reach::default() });
        assert_eq!(of(&release, object(None, Some("team-a"))), "uid-of-the-cluster", "it takes over");
    }

    #[test]
    fn formats_have_their_prefixes_and_the_fence_its_key() {
        for (name, format, prefix) in [
            ("Kitex", Format::Kitex, "kitex/registry-etcd"),
            ("Hertz", Format::Hertz, "hertz/registry-etcd"),
            ("Kratos", Format::Kratos, "/microservices"),
            ("GoZero", Format::GoZero, ""),
            ("GRPC", Format::Grpc, ""),
        ] {
            let layout = of(&json!({"format": name})).unwrap().identity.layout;
            assert_eq!((layout.format(), layout.prefix()), (format, prefix));
            assert_eq!(layout.format().as_str(), name);
        }
        assert_eq!(of(&json!({"prefix": ""})).unwrap().identity.layout.prefix(), "");
        let fence = |spec: &Value| of(spec).unwrap().identity.fence_prefix;
        assert_eq!(fence(&json!({})).as_deref(), Some("twinspan/"));
        assert_eq!(fence(&json!({"fence": {"keyPrefix": "other/"}})).as_deref(), Some("other/"));
        assert_eq!(fence(&json!({"fence": {"mode": "None"}})), None);
    }
}
