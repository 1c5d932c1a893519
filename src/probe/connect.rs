//! One TCP connection, as a probe.
//!
//! Owns the deadlines and the meaning of the result. Refuses to know when an address is probed.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::TcpStream;
use tokio::time::timeout;
use twinspan_core::model::InstanceAddr;
use twinspan_core::plan::departure::Answer;

use super::Prober;

/// The deadline of a connect.
const CONNECT: Duration = Duration::from_secs(1);
/// A proxy in front of a dead server accepts and closes. Only a connection still open after this long counts.
const STAYS_OPEN: Duration = Duration::from_millis(200);

/// Real connections.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpProber;

#[async_trait]
impl Prober for TcpProber {
    async fn probe(&self, addr: InstanceAddr) -> Answer {
        ask(SocketAddr::new(addr.ip(), addr.port())).await
    }
}

async fn ask(addr: SocketAddr) -> Answer {
    let stream = match timeout(CONNECT, TcpStream::connect(addr)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => return Answer::Refused,
        // No route, a network that is down, or no answer: none of these proves anything about the server.
        Ok(Err(_)) | Err(_) => return Answer::NoAnswer,
    };
    let mut byte = [0];
    match timeout(STAYS_OPEN, stream.peek(&mut byte)).await {
        // The connection is open, silent or with data.
        Err(_) | Ok(Ok(1..)) => Answer::Accepted,
        Ok(Ok(0) | Err(_)) => Answer::NoAnswer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn only_a_connection_that_stays_open_is_accepted() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (quiet, _) = listener.accept().await.unwrap();
            let (mut talks, _) = listener.accept().await.unwrap();
            talks.write_all(b"hello").await.unwrap();
            let (closes, _) = listener.accept().await.unwrap();
            drop(closes);
            (quiet, talks)
        });
        assert_eq!(ask(addr).await, Answer::Accepted);
        assert_eq!(ask(addr).await, Answer::Accepted);
        assert_eq!(ask(addr).await, Answer::NoAnswer);
        drop(server.await.unwrap());
        assert_eq!(ask(addr).await, Answer::Refused);
    }
}
