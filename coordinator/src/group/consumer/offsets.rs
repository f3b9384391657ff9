//! Whether a member may commit and fetch offsets. Kafka: `ConsumerGroup.validateOffsetCommit` and
//! `validateOffsetFetch`; KIP-1251 for commits from an epoch that is over.

use engine::ids::{PartitionIndex, TopicId};

use super::{ConsumerGroup, Fault};

impl ConsumerGroup {
    /// Whether a commit of `member` in its `epoch` (for a member of the classic protocol its
    /// generation) may be looked at at all; what partitions it may commit is
    /// [`ConsumerGroup::may_commit`]'s business. -1 and no member: from outside of the group, which
    /// may be as long as nobody is in it.
    /// `is_old`: it says so in words that have no epochs.
    pub fn check_commit(&self, member: &str, epoch: i32, is_old: bool) -> Result<(), Fault> {
        if epoch < 0 && self.members.is_empty() {
            return Ok(());
        }
        let value = self.member(member).ok_or(Fault::UnknownMemberId)?;
        let current = self.current(member);
        if is_old && value.classic.is_none() {
            return Err(Fault::UnsupportedVersion);
        }
        if value.classic.is_some() {
            return if epoch == current.epoch { Ok(()) } else { Err(Fault::IllegalGeneration) };
        }
        if epoch > current.epoch {
            return Err(Fault::StaleMemberEpoch { epoch: current.epoch, received: epoch });
        }
        Ok(())
    }

    /// After [`ConsumerGroup::check_commit`]: whether `member` may commit this partition. In its
    /// present epoch it may commit any; from one that is over only what it was given by then and
    /// has had since; nothing of a topic whose identity is not known.
    pub fn may_commit(
        &self,
        member: &str,
        epoch: i32,
        topic: Option<TopicId>,
        partition: PartitionIndex,
    ) -> Result<(), Fault> {
        let current = self.current(member);
        if epoch < 0 || epoch == current.epoch {
            return Ok(());
        }
        let of = |assigned: &super::records::Assigned| {
            assigned.get(&topic?).and_then(|all| all.get(&partition)).copied()
        };
        match of(&current.assigned).or_else(|| of(&current.revoking)) {
            Some(since) if since <= epoch => Ok(()),
            _ => Err(Fault::StaleMemberEpoch { epoch: current.epoch, received: epoch }),
        }
    }

    /// Whether `member` may fetch offsets in its `epoch`. No member and -1: from outside.
    pub fn check_fetch(&self, member: Option<&str>, epoch: i32) -> Result<(), Fault> {
        let Some(member) = member else {
            return if epoch < 0 { Ok(()) } else { Err(Fault::UnknownMemberId) };
        };
        let value = self.member(member).ok_or(Fault::UnknownMemberId)?;
        let current = self.current(member);
        if epoch == current.epoch {
            return Ok(());
        }
        if value.classic.is_some() {
            return Err(Fault::IllegalGeneration);
        }
        Err(Fault::StaleMemberEpoch { epoch: current.epoch, received: epoch })
    }
}
