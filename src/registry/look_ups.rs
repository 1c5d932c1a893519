//! Look-ups of leases, which tell how a departed record went.
//!
//! Owns the requests and the evidence that follows from each answer. Refuses to know which departures need one, which
//! the [`super::view`] does.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tracing::debug;
use twinspan_core::plan::departure::Evidence;
use twinspan_core::plan::departure::evidence::LeaseLookUp;

use super::handle::RegistryHandle;
use super::records::Affected;
use super::{LeaseState, Registry, RegistryError};
use crate::env::Env;
use crate::tasks;

/// Looks up the leases of departed records.
pub(super) fn start(
    handle: &Arc<RegistryHandle>,
    registry: &Arc<dyn Registry>,
    permits: &Arc<Semaphore>,
    env: &Env,
    affected: &mut Affected,
) {
    for look_up in std::mem::take(&mut affected.look_ups) {
        env.spawn(explain(handle.clone(), registry.clone(), look_up, permits.clone()));
    }
}

async fn explain(
    handle: Arc<RegistryHandle>,
    registry: Arc<dyn Registry>,
    look_up: LeaseLookUp,
    permits: Arc<Semaphore>,
) {
    let answer = {
        let _permit = permits.acquire().await;
        tasks::unbroken("look-up of a lease", registry.look_up(look_up.lease)).await
    };
    let evidence = match answer.unwrap_or_else(|panic| Err(RegistryError::Panicked(panic))) {
        Ok(LeaseState::Lives) if handle.leases.is_granted_since(look_up.lease, look_up.written).await => {
            Evidence::LeaseExpired
        }
        Ok(LeaseState::Lives) => look_up.if_it_lives,
        Ok(LeaseState::Gone) => Evidence::LeaseExpired,
        Err(error) => {
            debug!(registry = handle.name, lease = %look_up.lease, %error, "cannot look up a departed record's lease");
            Evidence::LeaseUnreadable
        }
    };
    if handle.view().departures.explain(&look_up, evidence) {
        let names = [look_up.name.clone()].into();
        handle.notify(Affected { names, ..Affected::default() });
    }
}
