//! Credential plugins of a kubeconfig (`exec`): run once for a command, which needs credentials once.
//!
//! Owns the words for a plugin that fails. Refuses to renew anything: the operator, which lives longer than its
//! credentials, leaves the plugin to kube.

use std::io::IsTerminal;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::config::{AuthInfo, ExecConfig, ExecInteractiveMode};
use serde::Deserialize;
use serde_json::json;

/// The reason why a plugin gave no credentials.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    #[error("the user of the kubeconfig has a credential plugin without a command")]
    NoCommand,
    #[error("cannot run the credential plugin {command}: {source}{hint}")]
    Start { command: String, source: std::io::Error, hint: String },
    #[error("the credential plugin {command} failed ({status}); what it said is above")]
    Failed { command: String, status: std::process::ExitStatus },
    #[error("the credential plugin {command} printed no ExecCredential: {text}")]
    Output { command: String, text: String },
}

/// The output of a plugin, of which only the status matters (client.authentication.k8s.io).
#[derive(Deserialize)]
struct Credential {
    status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    token: Option<String>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
}

impl Status {
    fn is_complete(&self) -> bool {
        self.token.is_some() || (self.client_certificate_data.is_some() && self.client_key_data.is_some())
    }
}

/// Replaces the plugin of a user with the credentials that it prints.
///
/// # Errors
/// [`PluginError`] if it gives none.
pub fn run_once(user: &mut AuthInfo) -> Result<(), PluginError> {
    let Some(exec) = user.exec.take() else { return Ok(()) };
    let status = run(&exec)?;
    let encoded = |pem: String| STANDARD.encode(pem);
    user.token = status.token.map(Into::into).or(user.token.take());
    if let (Some(certificate), Some(key)) = (status.client_certificate_data, status.client_key_data) {
        user.client_certificate_data = Some(encoded(certificate));
        user.client_key_data = Some(encoded(key).into());
    }
    Ok(())
}

fn run(exec: &ExecConfig) -> Result<Status, PluginError> {
    let program = exec.command.as_deref().ok_or(PluginError::NoCommand)?;
    // The arguments may hold a secret.
    let command = program.to_owned();
    let interactive = exec.interactive_mode != Some(ExecInteractiveMode::Never) && std::io::stdin().is_terminal();
    let about = json!({
        "apiVersion": exec.api_version,
        "kind": "ExecCredential",
        "spec": {"interactive": interactive, "cluster": exec.cluster},
    });
    let variables = exec.env.iter().flatten().filter_map(|pair| Some((pair.get("name")?, pair.get("value")?)));
    let output = Command::new(program)
        .args(exec.args.iter().flatten())
        .envs(variables)
        .env("KUBERNETES_EXEC_INFO", about.to_string())
        .stdin(if interactive { Stdio::inherit() } else { Stdio::null() })
        .stderr(Stdio::inherit())
        .output();
    let output = output.map_err(|source| PluginError::Start {
        command: command.clone(),
        source,
        hint: exec.install_hint.as_ref().map(|hint| format!("; {}", hint.trim())).unwrap_or_default(),
    })?;
    if !output.status.success() {
        return Err(PluginError::Failed { command, status: output.status });
    }
    // JSON is YAML, and some plugins print YAML.
    match serde_yaml::from_slice::<Credential>(&output.stdout) {
        Ok(Credential { status: Some(status) }) if status.is_complete() => Ok(status),
        Ok(Credential { status: Some(_) }) => {
            let text = "its status has neither a token nor a certificate with its key".to_owned();
            Err(PluginError::Output { command, text })
        }
        Ok(Credential { status: None }) => Err(PluginError::Output { command, text: "it has no status".to_owned() }),
        // The words of the parser quote what was printed, which may be a token.
        Err(error) => {
            let place = error.location().map(|at| format!(" at line {} column {}", at.line(), at.column()));
            let text = format!("it cannot be parsed{}", place.unwrap_or_default());
            Err(PluginError::Output { command, text })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(script: &str) -> AuthInfo {
        let exec = ExecConfig {
            api_version: Some("client.authentication.k8s.io/v1".to_owned()),
            command: Some("sh".to_owned()),
            args: Some(vec!["-c".to_owned(), script.to_owned()]),
            install_hint: Some("install sh\n".to_owned()),
            ..ExecConfig::default()
        };
        AuthInfo { exec: Some(exec), ..AuthInfo::default() }
    }

    #[test]
    fn a_plugin_gives_a_token_or_a_certificate_and_is_not_run_again() {
        let mut token =
            user(r#"echo "{\"status\": {\"token\": \"of $(echo $KUBERNETES_EXEC_INFO | grep -c ExecCredential)\"}}""#);
        run_once(&mut token).unwrap();
        let value = serde_json::to_value(&token).unwrap();
        assert_eq!(value["token"], "of 1");
        assert!(token.exec.is_none());

        let mut certificate = user("echo 'status: {clientCertificateData: C, clientKeyData: K}'");
        run_once(&mut certificate).unwrap();
        let value = serde_json::to_value(&certificate).unwrap();
        assert_eq!((&value["client-certificate-data"], &value["client-key-data"]), (&json!("Qw=="), &json!("Sw==")));
    }

    #[test]
    fn a_plugin_that_fails_is_told_in_words() {
        let failed = run_once(&mut user("exit 3")).unwrap_err().to_string();
        assert_eq!(failed, "the credential plugin sh failed (exit status: 3); what it said is above");
        let odd = run_once(&mut user("echo hello")).unwrap_err().to_string();
        assert!(
            odd.starts_with("the credential plugin sh printed no ExecCredential") && !odd.contains("hello"),
            "{odd}"
        );
        let none = run_once(&mut user("echo 'status: {clientCertificateData: C}'")).unwrap_err().to_string();
        assert!(none.contains("neither a token nor a certificate"), "{none}");
        let mut absent = user("");
        absent.exec.as_mut().unwrap().command = Some("/nowhere/plugin".to_owned());
        let absent = run_once(&mut absent).unwrap_err().to_string();
        assert!(absent.contains("/nowhere/plugin") && absent.ends_with("(os error 2); install sh"), "{absent}");
    }
}
