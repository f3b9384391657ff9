//! Names that occur in many places, kept once under a number, as long as something has it.

use std::collections::BTreeMap;
use std::rc::Rc;

/// Names and their numbers. Numbers are used again, in an order that depends on nothing but the
/// calls.
#[derive(Clone, Default)]
pub struct Names {
    by_name: BTreeMap<Rc<str>, u32>,
    by_number: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Clone)]
struct Slot {
    name: Rc<str>,
    /// How many have it.
    holders: u32,
}

impl Names {
    /// A name's number, if it has one.
    pub fn number(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    /// A number for a name that has none; nobody has it yet.
    pub fn add(&mut self, name: Rc<str>) -> u32 {
        let slot = Slot { name: name.clone(), holders: 0 };
        let number = match self.free.pop() {
            Some(number) => {
                self.by_number[number as usize] = slot;
                number
            }
            None => {
                self.by_number.push(slot);
                u32::try_from(self.by_number.len() - 1).expect("memory ends before the numbers")
            }
        };
        let before = self.by_name.insert(name, number);
        assert!(before.is_none(), "a name has one number");
        number
    }

    /// One more has it.
    pub fn hold(&mut self, number: u32) {
        self.by_number[number as usize].holders += 1;
    }

    /// One less has it; the last takes the name along.
    pub fn let_go(&mut self, number: u32) {
        let slot = &mut self.by_number[number as usize];
        slot.holders -= 1;
        if slot.holders == 0 {
            let name = std::mem::replace(&mut slot.name, "".into());
            self.by_name.remove(&name);
            self.free.push(number);
        }
    }

    /// The name of a number that is in use.
    pub fn name(&self, number: u32) -> &Rc<str> {
        &self.by_number[number as usize].name
    }
}
