//! Which producers were just told to send a batch again. They often have sent the next ones
//! already, and where the log has never heard of a producer any sequence will do (KIP-360): the
//! second of two first batches would be taken and the first one refused for ever after
//! (KAFKA-14359). So whoever was refused is remembered until that batch is in the log.

use std::collections::VecDeque;

use engine::batch::{Producer, Sequence};
use engine::ids::ProducerId;
use engine::producers::ProducerError;

/// Producers of one partition that are remembered; of more, the one that was refused first is
/// forgotten.
pub(super) const REFUSALS_MAX: usize = 256;

/// Whose batches were refused and not seen again, at most one batch of each.
#[derive(Default)]
pub(super) struct Refusals(VecDeque<Refused>);

struct Refused {
    producer: Producer,
    first: Sequence,
}

impl Refusals {
    /// Whether nobody is remembered.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A batch of `producer` was refused, to be sent again.
    pub fn note(&mut self, producer: Producer) {
        let Some(first) = producer.base_sequence else { return };
        match self.0.iter_mut().find(|known| known.producer.id == producer.id) {
            // The first one of this incarnation counts.
            Some(known) if known.producer.epoch >= producer.epoch => {}
            Some(known) => *known = Refused { producer, first },
            None => {
                if self.0.len() == REFUSALS_MAX {
                    self.0.pop_front();
                }
                self.0.push_back(Refused { producer, first });
            }
        }
    }

    /// Whether a batch of `producer`, of whom the log knows nothing, may be appended: not if one
    /// before it was refused and has not come again.
    pub fn check(&self, producer: Producer) -> Result<(), ProducerError> {
        let Producer { id, epoch, base_sequence: Some(found) } = producer else { return Ok(()) };
        let known = |known: &&Refused| known.producer.id == id && known.producer.epoch == epoch;
        match self.0.iter().find(known) {
            Some(known) if known.first != found => {
                Err(ProducerError::OutOfOrder { id, epoch, found, last: None })
            }
            _ => Ok(()),
        }
    }

    /// A batch of the producer is in the log, which says from now on what comes next.
    pub fn forget(&mut self, id: ProducerId) {
        self.0.retain(|known| known.producer.id != id);
    }
}

#[cfg(test)]
mod tests {
    use engine::ids::ProducerEpoch;

    use super::*;

    fn producer(id: i64, epoch: i16, sequence: i32) -> Producer {
        let base_sequence = Some(Sequence::from_wire(sequence).expect("not negative"));
        Producer { id: ProducerId(id), epoch: ProducerEpoch(epoch), base_sequence }
    }

    #[test]
    fn what_follows_a_refused_batch_waits_for_it() {
        let mut refusals = Refusals::default();
        refusals.note(producer(7, 0, 0));
        refusals.note(producer(7, 0, 3));
        assert!(refusals.check(producer(7, 0, 3)).is_err());
        assert!(refusals.check(producer(8, 0, 3)).is_ok());
        assert!(refusals.check(producer(7, 0, 0)).is_ok());
        refusals.forget(ProducerId(7));
        assert!(refusals.is_empty() && refusals.check(producer(7, 0, 3)).is_ok());
    }

    #[test]
    fn a_new_incarnation_begins_anew() {
        let mut refusals = Refusals::default();
        refusals.note(producer(7, 0, 4));
        assert!(refusals.check(producer(7, 1, 0)).is_ok());
        refusals.note(producer(7, 1, 0));
        refusals.note(producer(7, 0, 5));
        assert!(refusals.check(producer(7, 1, 1)).is_err());
    }

    #[test]
    fn of_more_the_oldest_is_forgotten() {
        let mut refusals = Refusals::default();
        for id in 0..=REFUSALS_MAX as i64 {
            refusals.note(producer(id, 0, 0));
        }
        assert!(refusals.check(producer(0, 0, 1)).is_ok());
        assert!(refusals.check(producer(1, 0, 1)).is_err());
        assert_eq!(refusals.0.len(), REFUSALS_MAX);
    }
}
