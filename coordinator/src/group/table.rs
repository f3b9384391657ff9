//! All groups of a machine, by name. There may be millions, most of which only committed offsets:
//! what is remembered of those besides is one pointer.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;

use super::consumer::ConsumerGroup;
use super::consumer::records::Change;
use super::records::ClassicValue;

/// What the log remembers of one group, without its offsets.
#[derive(Clone, Copy, Debug)]
pub enum Group<'a> {
    /// A group of the classic protocol; or, without a value, one that only committed offsets.
    Classic(Option<&'a Rc<ClassicValue>>),
    /// A group of the consumer protocol.
    Consumer(&'a ConsumerGroup),
}

impl Group<'_> {
    /// Kafka's name of its type.
    pub const fn type_name(self) -> &'static str {
        match self {
            Group::Classic(_) => "classic",
            Group::Consumer(_) => "consumer",
        }
    }
}

/// Every group that is there.
#[derive(Clone, Default, Debug)]
pub struct GroupTable(BTreeMap<Rc<str>, Slot>);

/// `None`: it only committed offsets.
type Slot = Option<Rc<Kind>>;

#[derive(Clone, Debug)]
enum Kind {
    Classic(Rc<ClassicValue>),
    Consumer(Box<ConsumerGroup>),
}

fn seen<'a>((name, slot): (&'a Rc<str>, &'a Slot)) -> (&'a Rc<str>, Group<'a>) {
    let group = match slot.as_deref() {
        None => Group::Classic(None),
        Some(Kind::Classic(value)) => Group::Classic(Some(value)),
        Some(Kind::Consumer(group)) => Group::Consumer(group),
    };
    (name, group)
}

impl GroupTable {
    /// The group of this name.
    pub fn get(&self, name: &str) -> Option<Group<'_>> {
        self.find(name).map(|(_, group)| group)
    }

    /// The group of this name, and the name as it is kept.
    pub fn find(&self, name: &str) -> Option<(&Rc<str>, Group<'_>)> {
        self.0.get_key_value(name).map(seen)
    }

    /// Whether there is a group of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&Rc<str>, Group<'_>)> {
        self.0.iter().map(seen)
    }

    /// Those from a name on.
    pub(super) fn iter_from<'a>(
        &'a self,
        from: Bound<&str>,
    ) -> impl Iterator<Item = (&'a Rc<str>, Group<'a>)> + use<'a> {
        self.0.range::<str, _>((from, Bound::Unbounded)).map(seen)
    }

    /// The name of a group that committed offsets: one that is there, or a new one.
    pub(super) fn name_of(&mut self, name: &str) -> Rc<str> {
        match self.0.get_key_value(name) {
            Some((name, _)) => name.clone(),
            None => {
                let name: Rc<str> = name.into();
                self.0.insert(name.clone(), None);
                name
            }
        }
    }

    /// Makes a record of a classic group true. A tombstone takes nothing from a consumer group,
    /// because it is of what was there before, and leaves the name where there are offsets.
    pub(super) fn apply_classic(
        &mut self,
        name: &str,
        value: Option<&Rc<ClassicValue>>,
        has_offsets: bool,
    ) {
        let slot = value.map(|value| Rc::new(Kind::Classic(value.clone())));
        match (self.0.get_mut(name), value) {
            (Some(Some(kind)), None) if matches!(**kind, Kind::Consumer(_)) => {}
            (Some(there), _) if value.is_some() || has_offsets => *there = slot,
            (Some(_), _) => _ = self.0.remove(name),
            (None, Some(_)) => _ = self.0.insert(name.into(), slot),
            (None, None) => {}
        }
    }

    /// Makes a record of a consumer group true. Tombstones take nothing from a classic group, for
    /// the same reason, and leave the name where there are offsets.
    pub(super) fn apply_consumer(&mut self, name: &Rc<str>, change: &Change, has_offsets: bool) {
        let there = self.0.get_mut(name);
        let is_there = there.is_some();
        if let Some(Some(kind)) = there
            && matches!(**kind, Kind::Consumer(_))
        {
            let Kind::Consumer(group) = Rc::make_mut(kind) else { unreachable!("just looked") };
            let mut slot = Some(std::mem::take(&mut **group));
            ConsumerGroup::apply(&mut slot, change);
            match slot {
                Some(after) => **group = after,
                None if has_offsets => _ = self.0.insert(name.clone(), None),
                None => _ = self.0.remove(name),
            }
            return;
        }
        let mut slot = None;
        ConsumerGroup::apply(&mut slot, change);
        if let Some(group) = slot {
            let slot = Some(Rc::new(Kind::Consumer(Box::new(group))));
            match is_there {
                true => *self.0.get_mut(name).expect("just looked") = slot,
                false => _ = self.0.insert(name.clone(), slot),
            }
        }
    }
}
