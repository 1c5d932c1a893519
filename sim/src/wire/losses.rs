//! Events that a watch of etcd never tells, though it goes on.
//!
//! Owns the choice of the messages that lose their events: etcd itself has lost some (etcd issues 18089 and 19179).
//! Refuses to touch what concerns no record: who leads is nothing that an audit finds.

use bytes::{BufMut, Bytes, BytesMut};
use etcd_client::proto::PbWatchResponse;
use prost::Message;

use super::Wire;
use crate::check::doors::GRPC_HEAD;
use crate::world::keys::is_record;

impl Wire {
    /// The next events of records are lost for each of these senders.
    pub fn lose_events(&self, senders: impl IntoIterator<Item = String>) {
        self.state().losing.extend(senders);
    }

    /// Nothing is lost any more.
    pub fn lose_no_events(&self) {
        self.state().losing.clear();
    }

    /// The frame as a reader gets it: without its events, if it is the next one that has some of records.
    pub(super) fn without_lost_events(&self, reader: &str, frame: Bytes) -> Bytes {
        if !self.state().losing.contains(reader) {
            return frame;
        }
        let Some(mut message) = one_message(&frame) else { return frame };
        let mut keys = message.events.iter().filter_map(|event| event.kv.as_ref());
        if !keys.any(|kv| is_record(&kv.key)) {
            return frame;
        }
        message.events.clear();
        self.state().losing.remove(reader);
        self.count("events lost");
        self.0.trace.add(reader, "is not told of an event");
        let mut without = BytesMut::with_capacity(GRPC_HEAD + message.encoded_len());
        without.put_u8(0);
        without.put_u32(message.encoded_len() as u32);
        without.extend_from_slice(&message.encode_to_vec());
        without.freeze()
    }
}

/// The message of a frame that has one alone.
fn one_message(frame: &Bytes) -> Option<PbWatchResponse> {
    let length = frame.get(1..GRPC_HEAD)?.try_into().ok().map(u32::from_be_bytes)?;
    let message = frame.get(GRPC_HEAD..)?;
    (message.len() as u32 == length).then(|| PbWatchResponse::decode(message).ok())?
}
