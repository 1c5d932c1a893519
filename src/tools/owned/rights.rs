//! The rights that decide whether an account sees everything that an operator sees.
//!
//! Owns the question to the API server: an access review about oneself for each list, which every account may make.
//! Refuses to list anything to find out.

use futures::future::try_join_all;
use kube::Client;

use crate::tools::doctor::rbac::{Subject, granted};

/// Whether this account may list all that the view of an operator is made of.
///
/// # Errors
/// The error of a review that could not be made.
pub async fn sees_everything(client: &Client, operator_namespace: &str) -> kube::Result<bool> {
    let lists: Vec<_> = granted().into_iter().filter(|grant| grant.verb == "list" && grant.name.is_empty()).collect();
    let reviews = lists.iter().map(|grant| Subject::Oneself.is_granted(client, operator_namespace, grant));
    Ok(try_join_all(reviews).await?.into_iter().all(|allowed| allowed))
}
