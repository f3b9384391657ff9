//! From what a member has to what it is to have, one safe step at a time. Kafka:
//! `CurrentAssignmentBuilder`.
//!
//! ```text
//!             target moves, something to give up
//!   ┌──────┐ ─────────────────────────────────► ┌───────────┐
//!   │stable│                                    │ unrevoked │ says that it has it no more
//!   └──────┘ ◄──────┐                   ┌────── └───────────┘
//!      │            │ all is free       ▼
//!      └────────► ┌────────────────────────┐
//!   something is  │ unreleased: has what   │
//!   not free yet  │ is free, in new epoch  │
//!                 └────────────────────────┘
//! ```
//!
//! A member that gives something up stays in its epoch; it arrives at the target's epoch when
//! nothing is left to give up. What it is given it may use at once; so nothing is given before
//! everybody else has let go of it.

use std::collections::BTreeMap;

use engine::ids::TopicId;

use super::records::{Assigned, Current, MemberState};
use super::{ConsumerGroup, Mutant};
use crate::group::assignor::Partitions;

impl ConsumerGroup {
    /// The next state of a member that is in `before`; the same if there is nothing to do, and
    /// `None` if it has to give up everything and join again. `wants` tells which topics it is
    /// subscribed to by now; `owned` is what it says that it has, `None` if it does not say.
    pub(super) fn next_step(
        &self,
        before: &Current,
        target: &Partitions,
        wants: &dyn Fn(TopicId) -> bool,
        owned: Option<&Partitions>,
        mutant: Option<Mutant>,
    ) -> Option<Current> {
        let strays = || before.assigned.keys().any(|topic| !wants(*topic));
        let waits = match before.state {
            MemberState::Stable => before.epoch == self.target_epoch,
            MemberState::UnrevokedPartitions => {
                let awaited = mutant != Some(Mutant::RevocationNotAwaited);
                awaited && has_any(owned, &before.revoking)
            }
            MemberState::UnreleasedPartitions => false,
            MemberState::Unknown if owned.is_some_and(Partitions::is_empty) => false,
            MemberState::Unknown => return None,
        };
        if !waits {
            return Some(self.compute(before, target, wants, owned, mutant));
        }
        if strays() { Some(shrink(before, wants, owned)) } else { Some(before.clone()) }
    }

    fn compute(
        &self,
        before: &Current,
        target: &Partitions,
        wants: &dyn Fn(TopicId) -> bool,
        owned: Option<&Partitions>,
        mutant: Option<Mutant>,
    ) -> Current {
        let wanted = |topic: &TopicId| target.get(topic).filter(|_| wants(*topic));
        let (mut kept, mut revoking) = (Assigned::new(), Assigned::new());
        for (topic, partitions) in &before.assigned {
            for (partition, epoch) in partitions {
                let stays = wanted(topic).is_some_and(|target| target.contains(partition));
                let to = if stays { &mut kept } else { &mut revoking };
                to.entry(*topic).or_default().insert(*partition, *epoch);
            }
        }
        let awaited = mutant != Some(Mutant::RevocationNotAwaited);
        if awaited && has_any(owned, &revoking) {
            return before.becoming(MemberState::UnrevokedPartitions, before.epoch, kept, revoking);
        }

        let mut state = MemberState::Stable;
        for topic in target.keys() {
            for partition in wanted(topic).into_iter().flatten() {
                if kept.get(topic).is_some_and(|kept| kept.contains_key(partition)) {
                    continue;
                }
                let early = mutant == Some(Mutant::UnreleasedGivenEarly);
                if early || self.is_free_for(before, *topic, *partition) {
                    kept.entry(*topic).or_default().insert(*partition, self.target_epoch);
                } else {
                    state = MemberState::UnreleasedPartitions;
                }
            }
        }
        let bumped = mutant != Some(Mutant::EpochNotBumped) || before.epoch <= super::JOIN_EPOCH;
        let epoch = if bumped { self.target_epoch } else { before.epoch };
        before.becoming(state, epoch, kept, Assigned::new())
    }
}

impl Current {
    fn becoming(
        &self,
        state: MemberState,
        epoch: i32,
        assigned: Assigned,
        revoking: Assigned,
    ) -> Current {
        let next = Current { epoch, previous_epoch: self.epoch, state, assigned, revoking };
        // Any step ends the time in which the epoch before is believed; no step does not.
        let same = Current { previous_epoch: self.previous_epoch, ..next.clone() };
        if same == *self { same } else { next }
    }
}

/// Takes topics away that the member is no longer subscribed to, while it waits for the rest.
fn shrink(
    before: &Current,
    wants: &dyn Fn(TopicId) -> bool,
    owned: Option<&Partitions>,
) -> Current {
    let mut revoking = before.revoking.clone();
    let mut assigned = before.assigned.clone();
    assigned.retain(|topic, partitions: &mut BTreeMap<_, _>| {
        let stays = wants(*topic);
        if !stays {
            revoking.entry(*topic).or_default().append(&mut partitions.clone());
        }
        stays
    });
    if has_any(owned, &revoking) {
        before.becoming(MemberState::UnrevokedPartitions, before.epoch, assigned, revoking)
    } else {
        before.becoming(before.state, before.epoch, assigned, Assigned::new())
    }
}

/// Whether a member that says that it has `owned` may have any of `revoking`; one who does not say
/// may.
fn has_any(owned: Option<&Partitions>, revoking: &Assigned) -> bool {
    let Some(owned) = owned else { return !revoking.is_empty() };
    owned.iter().any(|(topic, partitions)| {
        let revoking = revoking.get(topic);
        revoking.is_some_and(|revoking| partitions.iter().any(|p| revoking.contains_key(p)))
    })
}
