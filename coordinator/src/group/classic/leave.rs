//! LeaveGroup: members leave, or an administrator removes them. Kafka:
//! `GroupMetadataManager.classicGroupLeaveToClassicGroup`.

use super::Live;
use super::desk::Desk;
use crate::group::request::{GroupFault, Leaver, Left};

impl Live {
    /// Decides who leaves; the group goes on without them once all are out.
    pub(in crate::group) fn leave(
        &mut self,
        desk: &mut Desk<'_>,
        leavers: Vec<Leaver>,
    ) -> Vec<Left> {
        let mut left = Vec::with_capacity(leavers.len());
        for leaver in leavers {
            let fault = self.leave_one(desk, &leaver).err();
            let reason = leaver.reason.as_deref().unwrap_or("not given");
            if fault.is_none() {
                tracing::info!(group = %desk.group, member = %leaver.member, reason, "left");
            }
            left.push(Left { member: leaver.member, instance: leaver.instance, fault });
        }
        if left.iter().any(|one| one.fault.is_none()) {
            self.after_departures(desk, "members left");
        }
        left
    }

    fn leave_one(&mut self, desk: &mut Desk<'_>, leaver: &Leaver) -> Result<(), GroupFault> {
        let id = match (leaver.member.as_str(), &leaver.instance) {
            // An administrator does not know the id.
            ("", Some(instance)) => {
                self.statics.get(instance).ok_or(GroupFault::UnknownMemberId)?.clone()
            }
            ("", None) => return Err(GroupFault::UnknownMemberId),
            (id, _) if self.pending.contains(id) => id.into(),
            (id, instance) => {
                self.check_member(id, instance.as_deref())?;
                id.into()
            }
        };
        self.take_out(desk, &id);
        Ok(())
    }
}
