//! The services Cluster and Maintenance.
//!
//! Owns what a member says of itself and of the others. Refuses to change the cluster for a client.

use std::pin::Pin;

use etcd_client::proto::{
    PbAlarmMember, PbAlarmRequest, PbAlarmResponse, PbClusterService, PbDefragmentRequest, PbDefragmentResponse,
    PbDowngradeInfo, PbDowngradeRequest, PbDowngradeResponse, PbHashKvRequest, PbHashKvResponse, PbHashRequest,
    PbHashResponse, PbMaintenanceService, PbMember, PbMemberAddRequest, PbMemberAddResponse, PbMemberListRequest,
    PbMemberListResponse, PbMemberPromoteRequest, PbMemberPromoteResponse, PbMemberRemoveRequest,
    PbMemberRemoveResponse, PbMemberUpdateRequest, PbMemberUpdateResponse, PbMoveLeaderRequest, PbMoveLeaderResponse,
    PbSnapshotRequest, PbSnapshotResponse, PbStatusRequest, PbStatusResponse,
};
use futures::Stream;
use tonic::{Request, Response, Status};

use super::{Member, of};
use crate::error::Error;

/// Value of AlarmType.NOSPACE, which etcd-client exports for clients only.
const NOSPACE: i32 = 1;
/// The default of `--quota-backend-bytes` (`DefaultQuotaBytes` of `server/storage/quota.go`).
const QUOTA_BYTES: i64 = 2 * 1024 * 1024 * 1024;
/// The size of a database in bytes, made up: nothing is stored in a file.
const DB_BYTES: i64 = 32 * 1024;

fn never<T>(what: &str) -> Result<T, Status> {
    Err(Status::unimplemented(format!("the fake etcd has no {what}")))
}

#[tonic::async_trait]
impl PbClusterService for Member {
    async fn member_list(
        &self,
        request: Request<PbMemberListRequest>,
    ) -> Result<Response<PbMemberListResponse>, Status> {
        let (headers, request) = (of(&request)?, request.into_inner());
        let caller = self.caller(&headers)?;
        self.etcd.with(|state| state.auth.require_user(caller.user.as_deref()))?;
        if request.linearizable {
            self.linearizable(&headers).await?;
        }
        let members = self.etcd.with(|state| {
            let listed = state.members.list.iter().enumerate().filter(|(_, member)| !member.removed);
            let member = |(index, id): (usize, u64)| PbMember {
                id,
                name: format!("member-{index}"),
                peer_ur_ls: vec![format!("http://member-{index}:2380")],
                client_ur_ls: vec![format!("http://member-{index}:2379")],
                is_learner: false,
            };
            listed.map(|(index, state)| member((index, state.id))).collect()
        });
        let mut response = PbMemberListResponse { members, ..PbMemberListResponse::default() };
        self.fill(&mut response.header);
        // The header of this answer has no revision (`ClusterServer.header` of member.go).
        if let Some(header) = &mut response.header {
            header.revision = 0;
        }
        Ok(Response::new(response))
    }

    async fn member_add(&self, _: Request<PbMemberAddRequest>) -> Result<Response<PbMemberAddResponse>, Status> {
        never("MemberAdd")
    }

    async fn member_remove(
        &self,
        _: Request<PbMemberRemoveRequest>,
    ) -> Result<Response<PbMemberRemoveResponse>, Status> {
        never("MemberRemove")
    }

    async fn member_update(
        &self,
        _: Request<PbMemberUpdateRequest>,
    ) -> Result<Response<PbMemberUpdateResponse>, Status> {
        never("MemberUpdate")
    }

    async fn member_promote(
        &self,
        _: Request<PbMemberPromoteRequest>,
    ) -> Result<Response<PbMemberPromoteResponse>, Status> {
        never("MemberPromote")
    }
}

#[tonic::async_trait]
impl PbMaintenanceService for Member {
    async fn status(&self, request: Request<PbStatusRequest>) -> Result<Response<PbStatusResponse>, Status> {
        let caller = self.caller(&of(&request)?)?;
        let mut response = self.etcd.with(|state| {
            state.auth.require_user(caller.user.as_deref())?;
            let leader = state.members.leader.and_then(|leader| state.members.get(leader));
            let member = self.state(state).ok_or(Error::Unreachable)?;
            let mut errors = Vec::new();
            if leader.is_none() {
                errors.push("etcdserver: no leader".to_owned());
            }
            if state.quota_full {
                errors.push(format!("memberID:{} alarm:NOSPACE ", member.id));
            }
            // The major and the minor number only.
            let storage_version = state.options.version.split('.').take(2).chain(["0"]).collect::<Vec<_>>().join(".");
            Ok::<_, Error>(PbStatusResponse {
                header: None,
                version: state.options.version.clone(),
                db_size: DB_BYTES,
                leader: leader.map_or(0, |leader| leader.id),
                raft_index: state.committed(),
                raft_term: state.members.term,
                raft_applied_index: member.applied,
                errors,
                db_size_in_use: DB_BYTES,
                is_learner: false,
                storage_version,
                db_size_quota: QUOTA_BYTES,
                downgrade_info: Some(PbDowngradeInfo::default()),
            })
        })?;
        self.fill(&mut response.header);
        Ok(Response::new(response))
    }

    /// Alarms are listed; none is set or cleared by a client.
    async fn alarm(&self, request: Request<PbAlarmRequest>) -> Result<Response<PbAlarmResponse>, Status> {
        if request.get_ref().action != 0 {
            return never("change of alarms");
        }
        let caller = self.caller(&of(&request)?)?;
        let alarms = self.etcd.with(|state| {
            state.auth.require_user(caller.user.as_deref())?;
            let member_id = self.state(state).map_or(0, |member| member.id);
            Ok::<_, Error>(
                state.quota_full.then_some(PbAlarmMember { member_id, alarm: NOSPACE }).into_iter().collect(),
            )
        })?;
        let mut response = PbAlarmResponse { alarms, ..PbAlarmResponse::default() };
        self.fill(&mut response.header);
        Ok(Response::new(response))
    }

    async fn defragment(&self, _: Request<PbDefragmentRequest>) -> Result<Response<PbDefragmentResponse>, Status> {
        never("Defragment")
    }

    async fn hash(&self, _: Request<PbHashRequest>) -> Result<Response<PbHashResponse>, Status> {
        never("Hash")
    }

    async fn hash_kv(&self, _: Request<PbHashKvRequest>) -> Result<Response<PbHashKvResponse>, Status> {
        never("HashKV")
    }

    type SnapshotStream = Pin<Box<dyn Stream<Item = Result<PbSnapshotResponse, Status>> + Send>>;

    async fn snapshot(&self, _: Request<PbSnapshotRequest>) -> Result<Response<Self::SnapshotStream>, Status> {
        never("Snapshot")
    }

    async fn move_leader(&self, _: Request<PbMoveLeaderRequest>) -> Result<Response<PbMoveLeaderResponse>, Status> {
        never("MoveLeader")
    }

    async fn downgrade(&self, _: Request<PbDowngradeRequest>) -> Result<Response<PbDowngradeResponse>, Status> {
        never("Downgrade")
    }
}
