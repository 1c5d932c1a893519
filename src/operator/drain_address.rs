//! The address at which pods that end ask.
//!
//! Owns the rule that it has to be free: hooks name it. Refuses to know the answers.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use super::OperatorError;

/// Listens there.
///
/// # Errors
/// [`OperatorError::Drain`] if the address cannot be had.
pub async fn listen_for_drains(address: SocketAddr) -> Result<TcpListener, OperatorError> {
    TcpListener::bind(address).await.map_err(|source| OperatorError::Drain { address, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_is_taken_is_told_with_its_flag() {
        let taken = listen_for_drains("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = listen_for_drains(address).await.unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("--drain-addr"), "{error}");
    }
}
