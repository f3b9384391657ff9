//! A decision in the making: the group as it will be when the records so far are applied.

use std::rc::Rc;

use super::convert::ClassicGroup;
use super::records::{Change, Current, GroupValue, MemberValue, PatternValue};
use super::soft::Soft;
use super::topics::{Topics, UNKNOWN};
use super::{ConsumerConfig, ConsumerGroup, Fault, Mutant, Record, Times, patterns};
use crate::group::assignor::Partitions;
use crate::machine::Moment;

/// What a decision may look at beyond the group.
#[derive(Clone, Copy)]
pub struct Scene<'a> {
    /// The limits.
    pub config: &'a ConsumerConfig,
    /// The times that the group goes by.
    pub times: Times,
    /// The topics of the cluster.
    pub topics: &'a dyn Topics,
    /// The moment.
    pub at: Moment,
}

/// What a decision leads to besides its answer.
#[derive(Default, Debug)]
pub struct Effects {
    /// To append, all or none, in this order.
    pub records: Vec<Record>,
    /// The group becomes this classic one: after `records`, which end with the tombstone of the
    /// consumer group, its own record has to be appended. Its members are to join again.
    pub downgraded: Option<ClassicGroup>,
}

/// The group, as it is or as it will be. Copied with the first change; members, assignments and
/// owners are shared, so a copy costs a few steps per member.
pub(super) struct Draft<'a> {
    pub(super) name: &'a Rc<str>,
    pub(super) scene: Scene<'a>,
    before: Option<&'a ConsumerGroup>,
    after: Option<ConsumerGroup>,
    changes: Vec<Change>,
    /// What is wanted leads to more than the log can hold.
    is_too_large: bool,
}

impl<'a> Draft<'a> {
    pub(super) fn new(
        name: &'a Rc<str>,
        group: Option<&'a ConsumerGroup>,
        scene: Scene<'a>,
    ) -> Draft<'a> {
        let after = group.is_none().then(ConsumerGroup::default);
        Draft { name, scene, before: group, after, changes: Vec::new(), is_too_large: false }
    }

    pub(super) fn group(&self) -> &ConsumerGroup {
        self.after.as_ref().or(self.before).expect("one of them is there")
    }

    pub(super) fn put(&mut self, change: Change) {
        let before = self.before;
        let after = self.after.take().or_else(|| before.cloned());
        let mut slot = Some(after.unwrap_or_default());
        ConsumerGroup::apply(&mut slot, &change);
        self.after = slot.or_else(|| Some(ConsumerGroup::default()));
        self.changes.push(change);
    }

    /// Hands the records over.
    pub(super) fn finish(self, out: &mut Effects) {
        let name = self.name;
        out.records
            .extend(self.changes.into_iter().map(|change| Record { group: name.clone(), change }));
    }

    /// Takes over what a member is and wants. Whether that calls for a new epoch.
    pub(super) fn update_member(&mut self, id: &Rc<str>, member: MemberValue) -> bool {
        let before = self.group().member(id).cloned();
        if before.as_deref() == Some(&member) {
            return false;
        }
        let changed = before.as_deref().is_none_or(|before| {
            before.topics != member.topics || before.pattern != member.pattern
        });
        self.put(Change::Member(id.clone(), Some(Rc::new(member))));
        self.drop_pattern(before.and_then(|before| before.pattern.clone()));
        changed
    }

    /// Strikes a member off, with all that is remembered of it.
    pub(super) fn remove_member(&mut self, id: &Rc<str>, soft: &mut Soft) {
        soft.forget(id);
        let pattern = self.group().member(id).and_then(|member| member.pattern.clone());
        if self.group().currents.contains_key(id) {
            self.put(Change::Current(id.clone(), None));
        }
        let keeps = self.scene.config.mutant == Some(Mutant::LeaversAssigned);
        if self.group().targets.contains_key(id) && !keeps {
            self.put(Change::Target(id.clone(), None));
        }
        self.put(Change::Member(id.clone(), None));
        self.drop_pattern(pattern);
    }

    /// Forgets what a pattern stands for, if nobody uses it any more.
    fn drop_pattern(&mut self, text: Option<Rc<str>>) {
        let Some(text) = text else { return };
        let is_used = self.group().members().any(|(_, m)| m.pattern.as_ref() == Some(&text));
        if !is_used && self.group().patterns.contains_key(&text) {
            self.put(Change::Pattern(text, None));
        }
    }

    /// Looks for the topics of patterns that are new or that may stand for others by now.
    /// Whether the present topics are now taken into account.
    fn resolve_patterns(&mut self, soft: &mut Soft) -> bool {
        let (version, now) = (self.scene.topics.version(), self.scene.at.now);
        let rested = |at| now.since(at) >= super::config::PATTERN_PAUSE;
        let again = soft.topics_version != Some(version) && soft.patterns_at.is_none_or(rested);
        let mut used: Vec<Rc<str>> =
            self.group().members().filter_map(|(_, m)| m.pattern.clone()).collect();
        used.sort_unstable();
        used.dedup();
        soft.compiled.retain(|text, _| used.contains(text));
        let has_none = used.is_empty();
        for text in used {
            let before = self.group().patterns.get(&text).cloned();
            if before.is_some() && !again {
                continue;
            }
            let compiled = match soft.compiled.get(&text) {
                Some(compiled) => compiled,
                None => match patterns::compile(&text) {
                    Ok(compiled) => soft.compiled.entry(text.clone()).or_insert(compiled),
                    // It was checked when it came; a release that can do less finds nothing.
                    Err(error) => {
                        tracing::warn!(group = %self.name, %text, %error, "not an expression");
                        continue;
                    }
                },
            };
            let topics = patterns::resolve(compiled, self.scene.topics);
            if before.is_none_or(|before| before.topics != topics) {
                let value = PatternValue { topics, version, resolved: self.scene.at.wall };
                self.put(Change::Pattern(text, Some(Rc::new(value))));
            }
        }
        if again {
            soft.patterns_at = Some(now);
        }
        again || has_none
    }

    /// Begins a new epoch if `bump` says so or the topics are others than the present epoch knows,
    /// and makes a new target if the present one is of an older epoch and has stood long enough.
    pub(super) fn advance(&mut self, soft: &mut Soft, bump: bool) {
        let version = self.scene.topics.version();
        if bump || soft.topics_version != Some(version) {
            let is_current = self.resolve_patterns(soft);
            let hash = self.group().hash_of_topics(self.scene.topics);
            if bump || hash != self.group().topics_hash {
                let value = GroupValue::next(self.group(), hash, self.scene.at.wall);
                self.put(Change::Group(Some(value)));
            }
            if is_current {
                soft.topics_version = Some(version);
            }
        }
        let rested = |at| self.scene.at.now.since(at) >= self.scene.times.assignment_interval;
        let is_old = self.group().epoch() > self.group().target_epoch();
        let is_due = soft.assigned_at.is_none_or(rested);
        // Whoever brings more than the log can hold is told so itself, and not those who come by
        // when the target is due.
        if !is_old || !(is_due || (bump && self.may_be_too_large())) {
            return;
        }
        let target = self.group().new_target(self.scene.config, self.scene.topics);
        let fits = self.bytes(&target) <= self.scene.config.records_bytes_max;
        self.is_too_large = bump && !fits;
        if !is_due {
            return;
        }
        soft.assigned_at = Some(self.scene.at.now);
        if fits {
            target.into_iter().for_each(|change| self.put(change));
        } else if !bump {
            // Topics have grown. Everybody goes on with what they have.
            let (group, epoch) = (self.name, self.group().epoch());
            tracing::error!(%group, epoch, "its target is larger than one batch of the log holds");
        }
    }

    /// Whether a target of all of its members could be more than one batch; an estimate from above,
    /// which costs no assignment.
    fn may_be_too_large(&self) -> bool {
        /// What a member's record takes beyond names, topics and partitions.
        const MEMBER_BYTES: usize = 128;
        /// What a topic takes in it, and what a partition.
        const TOPIC_BYTES: usize = 24;
        const PARTITION_BYTES: usize = 4;
        if self.scene.config.mutant == Some(Mutant::LateTargetUnchecked) {
            return false;
        }
        let group = self.group();
        let wanted = group.wanted_by_any(self.scene.topics);
        let counts = wanted.iter().map(|(_, count)| usize::try_from(*count).unwrap_or(0));
        let partitions: usize = counts.sum();
        let names: usize = group.members().map(|(id, _)| id.len()).sum();
        let each = MEMBER_BYTES + self.name.len() + TOPIC_BYTES * wanted.len();
        let bytes = names + group.members().len() * each + PARTITION_BYTES * partitions;
        bytes > self.scene.config.records_bytes_max
    }

    /// How many bytes of a batch `changes` take, at the most.
    fn bytes(&self, changes: &[Change]) -> usize {
        let record = |change: &Change| Record { group: self.name.clone(), change: change.clone() };
        changes.iter().map(|change| record(change).bytes()).sum()
    }

    /// Refuses what the log cannot hold in one batch. Nothing of it is to be kept then.
    pub(super) fn check_size(&self, soft: &mut Soft) -> Result<(), Fault> {
        let most = self.scene.config.records_bytes_max;
        if !self.is_too_large && self.bytes(&self.changes) <= most {
            return Ok(());
        }
        tracing::warn!(group = %self.name, most, "a member wants more than a batch holds");
        // What was looked at has to be looked at again, and whoever was to go is still there.
        (soft.topics_version, soft.assigned_at) = (None, None);
        let forgets = self.scene.config.mutant == Some(Mutant::RefusedPlaceForgotten);
        if let Some(group) = self.before.filter(|_| !forgets) {
            soft.watch_again(group, &self.scene.times, self.scene.at.now);
        }
        Err(Fault::GroupTooLarge)
    }

    /// Leads a member one step towards its target. `owned` is what it says that it has; `None` if
    /// it does not say. `None` is the answer for a member that has to begin anew.
    pub(super) fn reconcile(
        &mut self,
        soft: &mut Soft,
        id: &Rc<str>,
        owned: Option<&Partitions>,
    ) -> Option<Rc<Current>> {
        let group = self.group();
        let member = group.member(id).cloned()?;
        let before = group.current(id);
        let wants = |topic| group.wants(&member, topic, self.scene.topics);
        let after = Rc::new(group.next_step(
            &before,
            &group.target(id),
            &wants,
            owned,
            self.scene.config.mutant,
        )?);
        if after != before || !group.currents.contains_key(id) {
            self.put(Change::Current(id.clone(), Some(after.clone())));
        }
        soft.watch_revocation(id, &member, &after, self.scene.config, self.scene.at.now);
        Some(after)
    }

    /// After members have gone: a new epoch for those who stay, or, if the last one that speaks
    /// the consumer protocol has gone, a classic group. Without members the epoch moves, too.
    pub(super) fn settle(mut self, soft: &mut Soft, out: &mut Effects) {
        if !self.downgrade(soft, out) {
            let hash = match self.scene.topics.version() {
                // Before anybody has asked in this term. Who asks first looks again.
                UNKNOWN => self.group().topics_hash,
                _ => self.group().hash_of_topics(self.scene.topics),
            };
            let value = GroupValue::next(self.group(), hash, self.scene.at.wall);
            self.put(Change::Group(Some(value)));
        }
        self.finish(out);
    }

    /// Makes it a classic group, if only members of the classic protocol are left; whether it does.
    pub(super) fn downgrade(&mut self, soft: &mut Soft, out: &mut Effects) -> bool {
        out.downgraded = super::convert::downgrade(self.group(), &self.scene);
        if out.downgraded.is_some() {
            for change in self.group().tombstones() {
                self.put(change);
            }
            *soft = Soft::default();
        }
        out.downgraded.is_some()
    }

    /// How the present state of `id` differs for an answer: whether it may use something else than
    /// `before` says.
    pub(super) fn assignment_changed(before: &Current, after: &Current) -> bool {
        before.partitions() != after.partitions()
    }
}
