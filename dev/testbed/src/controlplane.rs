//! kube-apiserver and kube-controller-manager, started as a real cluster starts them: RBAC, service account tokens, the
//! default endpoint reconciler, dual-stack Service ranges, an audit log. It does not know whether the cluster has
//! nodes.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, Client};

use crate::etcd::Etcd;
use crate::network::Place;
use crate::part::Part;
use crate::pki::Authority;
use crate::{Kubeconfig, access, eventually, namespace, repository};

/// The part that has the newest release of every program of a control plane.
pub const NEWEST: &str = "controlplane";
const PORT: u16 = 6443;
const SERVICE_RANGES: &str = "10.96.0.0/16,fd96::/108";

/// The settings in which clusters differ.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// The part that has the kube-apiserver; the other programs are always today's.
    pub release: &'static str,
    /// Lines of the token file (token, user, uid, groups) besides those of the administrator and the controllers.
    pub users: &'static [&'static str],
    /// Flags of kube-apiserver.
    pub apiserver: &'static [&'static str],
    /// Flags of kube-controller-manager.
    pub controller_manager: &'static [&'static str],
    /// Files of the repository that are applied before the controllers start.
    pub manifests: &'static [&'static str],
}

impl Kind {
    /// Pods are objects without processes.
    pub const WITHOUT_NODES: Self = Self {
        release: NEWEST,
        users: &[],
        apiserver: &[
            "--authorization-mode=RBAC",
            // Pods here have no kubelet that would mount a token.
            "--disable-admission-plugins=ServiceAccount",
        ],
        controller_manager: &[
            "--controllers=endpointslice-controller,endpointslice-mirroring-controller,garbage-collector-controller,\
             namespace-controller,serviceaccount-controller,root-ca-certificate-publisher-controller,clusterrole-aggregation-controller",
        ],
        // Before the controllers start: the garbage collector looks for new kinds only every 30 s.
        manifests: &["crds/serviceregistries.yaml", "crds/registeredservices.yaml"],
    };
}

/// Where the parts of a control plane run.
#[derive(Clone, Debug)]
pub struct Places {
    pub etcd: Place,
    pub apiserver: Place,
    pub controller_manager: Place,
}

pub struct ControlPlane {
    pub etcd: Etcd,
    pub apiserver: Part,
    pub controller_manager: Part,
    pub admin: Kubeconfig,
    pub client: Client,
    pub audit_log: PathBuf,
    server: String,
    ca: PathBuf,
}

impl std::fmt::Debug for ControlPlane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControlPlane").field("server", &self.server).finish_non_exhaustive()
    }
}

impl ControlPlane {
    pub async fn start(dir: &Path, ip: Ipv4Addr, etcd_ip: Ipv4Addr, kind: Kind) -> Result<Self> {
        let here = || Place::from(dir);
        let places = Places { etcd: here(), apiserver: here(), controller_manager: here() };
        Self::start_on(dir, places, ip, etcd_ip, kind).await
    }

    /// The same with a place for each part. Keys, kubeconfigs and the audit log are in `dir`.
    pub async fn start_on(dir: &Path, places: Places, ip: Ipv4Addr, etcd_ip: Ipv4Addr, kind: Kind) -> Result<Self> {
        let etcd = Etcd::spawn("cluster-etcd", places.etcd, etcd_ip, &[])?;
        let pki = Authority::create(&dir.join("pki"))?;
        let (cert, key) = pki.issue(
            "apiserver",
            &["kubernetes", "kubernetes.default.svc", "localhost"],
            &[IpAddr::V4(ip), IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1))],
        )?;
        let (sa_key, sa_pub) = pki.key_pair("service-accounts")?;
        let tokens = dir.join("pki/tokens.csv");
        // The test itself is the only administrator; everything else has its own identity and RBAC.
        let mut users =
            vec!["bed-admin,bed-admin,bed-admin,system:masters", "bed-kcm,system:kube-controller-manager,bed-kcm"];
        users.extend(kind.users);
        std::fs::write(&tokens, users.join("\n") + "\n")?;
        let policy = dir.join("pki/audit.yaml");
        std::fs::write(
            &policy,
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n",
        )?;
        let audit_log = dir.join("audit.log");

        let server = format!("https://{ip}:{PORT}");
        let ca = pki.ca_file();
        let admin = Kubeconfig::write(dir, "admin", &server, &ca, "bed-admin")?;
        let kcm = Kubeconfig::write(dir, "kube-controller-manager", &server, &ca, "bed-kcm")?;
        let show = |path: &Path| path.display().to_string();
        etcd.ready().await?;
        let mut flags = vec![
            "kube-apiserver".to_owned(),
            format!("--etcd-servers={}", etcd.endpoint()),
            format!("--bind-address={ip}"),
            format!("--advertise-address={ip}"),
            format!("--secure-port={PORT}"),
            format!("--tls-cert-file={}", show(&cert)),
            format!("--tls-private-key-file={}", show(&key)),
            format!("--service-cluster-ip-range={SERVICE_RANGES}"),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", show(&sa_pub)),
            format!("--service-account-signing-key-file={}", show(&sa_key)),
            format!("--token-auth-file={}", show(&tokens)),
            format!("--audit-policy-file={}", show(&policy)),
            format!("--audit-log-path={}", show(&audit_log)),
            // The unit is megabytes. Stories read the whole log, so it must not be rotated.
            "--audit-log-maxsize=10000".to_owned(),
            // A stopped test bed should end without delay.
            "--shutdown-delay-duration=0s".to_owned(),
        ];
        flags.extend(kind.apiserver.iter().map(|flag| (*flag).to_owned()));
        let binary = namespace::binary(kind.release)?;
        let apiserver = Part::start("kube-apiserver", places.apiserver, &binary, &flags, &[])?;
        let client = admin.client().await?;
        api_ready(&client, &apiserver).await?;

        for manifest in kind.manifests {
            access::apply_file(&client, &repository().join(manifest)).await?;
        }
        let mut flags = vec![
            "kube-controller-manager".to_owned(),
            format!("--kubeconfig={}", show(&kcm.path)),
            "--secure-port=0".to_owned(),
            "--leader-elect=false".to_owned(),
            "--use-service-account-credentials=true".to_owned(),
            format!("--service-account-private-key-file={}", show(&sa_key)),
            format!("--root-ca-file={}", show(&ca)),
        ];
        flags.extend(kind.controller_manager.iter().map(|flag| (*flag).to_owned()));
        let binary = namespace::binary(NEWEST)?;
        let controller_manager =
            Part::start("kube-controller-manager", places.controller_manager, &binary, &flags, &[])?;
        Ok(Self { etcd, apiserver, controller_manager, admin, client, audit_log, server, ca })
    }

    /// A kubeconfig for a user with a token.
    pub fn kubeconfig(&self, dir: &Path, user: &str, token: &str) -> Result<Kubeconfig> {
        Kubeconfig::write(dir, user, &self.server, &self.ca, token)
    }

    /// URL of the API server.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Waits until the API server answers, also after a restart.
    pub async fn api_ready(&self) -> Result<()> {
        api_ready(&self.client, &self.apiserver).await
    }

    /// The kubeconfig of an existing ServiceAccount.
    pub async fn account(&self, dir: &Path, namespace: &str, name: &str) -> Result<Kubeconfig> {
        let token = access::token(&self.client, namespace, name).await?;
        self.kubeconfig(dir, name, &token)
    }

    /// Waits until controllers work.
    pub async fn controllers_ready(&self) -> Result<()> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), "default");
        eventually("kube-controller-manager works", Duration::from_secs(60), || async {
            self.controller_manager.check_running()?;
            accounts.get("default").await.context("no default ServiceAccount yet")?;
            Ok(())
        })
        .await
    }
}

async fn api_ready(client: &Client, apiserver: &Part) -> Result<()> {
    eventually("kube-apiserver is ready", Duration::from_secs(90), || async {
        apiserver.check_running()?;
        let request = http_get("/readyz")?;
        let answer = client.request_text(request).await?;
        ensure!(answer == "ok", "{answer}");
        Ok(())
    })
    .await
}

fn http_get(path: &str) -> Result<http::Request<Vec<u8>>> {
    Ok(http::Request::get(path).body(Vec::new())?)
}
