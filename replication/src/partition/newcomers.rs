//! Producers that the log had never heard of when they came. Of those any sequence will do
//! (KIP-360), and they send several batches without waiting: when the first one is refused (too few
//! replicas, no leader yet) or given up (a full device), the second would be taken, and the first
//! refused for ever after (KAFKA-14359). So the sequence that a newcomer began with is remembered
//! for a while: as long as the log does not know him, he has to begin there.

use std::collections::VecDeque;
use std::time::Duration;

use engine::batch::Producer;
use engine::producers::ProducerError;
use engine::time::Instant;

/// Newcomers of one partition that are remembered; of more, the one that came first is forgotten.
pub(super) const NEWCOMERS_MAX: usize = 256;
/// How long one is remembered: longer than clients try to deliver a batch (two minutes). A log
/// forgets producers only after days, and then any sequence must do.
pub(super) const NEWCOMER_AGE_MAX: Duration = Duration::from_secs(600);

/// Who came to one partition.
#[derive(Default)]
pub(super) struct Newcomers(VecDeque<Newcomer>);

struct Newcomer {
    /// With the lowest sequence of this incarnation.
    began: Producer,
    came: Instant,
}

impl Newcomers {
    /// A batch of somebody whom the log does not know came at `now`. Refused if he began with an
    /// earlier one.
    pub fn admit(&mut self, producer: Producer, now: Instant) -> Result<(), ProducerError> {
        let Producer { id, epoch, base_sequence: Some(found) } = producer else { return Ok(()) };
        while self.0.front().is_some_and(|first| now.since(first.came) > NEWCOMER_AGE_MAX) {
            self.0.pop_front();
        }
        let Some(known) = self.0.iter_mut().find(|known| known.began.id == id) else {
            if self.0.len() == NEWCOMERS_MAX {
                self.0.pop_front();
            }
            self.0.push_back(Newcomer { began: producer, came: now });
            return Ok(());
        };
        let first = known.began.base_sequence.filter(|_| known.began.epoch == epoch);
        // Sequences go round at 2³¹.
        let is_later = |first: i32| (1..1 << 30).contains(&(found.to_wire().wrapping_sub(first)));
        if first.is_some_and(|first| is_later(first.to_wire())) {
            return Err(ProducerError::OutOfOrder { id, epoch, found, last: None });
        }
        if known.began.epoch <= epoch {
            known.began = producer;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use engine::batch::Sequence;
    use engine::ids::{ProducerEpoch, ProducerId};

    use super::*;

    fn producer(id: i64, epoch: i16, sequence: i32) -> Producer {
        let base_sequence = Some(Sequence::from_wire(sequence).expect("not negative"));
        Producer { id: ProducerId(id), epoch: ProducerEpoch(epoch), base_sequence }
    }

    #[test]
    fn whoever_is_unknown_begins_where_he_began() {
        let (mut newcomers, now) = (Newcomers::default(), Instant::ZERO);
        assert!(newcomers.admit(producer(7, 0, 3), now).is_ok());
        assert!(newcomers.admit(producer(7, 0, 6), now).is_err());
        assert!(newcomers.admit(producer(7, 0, 3), now).is_ok());
        assert!(newcomers.admit(producer(7, 0, 0), now).is_ok(), "what went before was given up");
        assert!(newcomers.admit(producer(7, 0, 3), now).is_err());
        assert!(newcomers.admit(producer(8, 0, 3), now).is_ok());
    }

    #[test]
    fn a_new_incarnation_begins_anew() {
        let (mut newcomers, now) = (Newcomers::default(), Instant::ZERO);
        assert!(newcomers.admit(producer(7, 0, 4), now).is_ok());
        assert!(newcomers.admit(producer(7, 1, 0), now).is_ok());
        assert!(newcomers.admit(producer(7, 1, 1), now).is_err());
        assert!(newcomers.admit(producer(7, 0, 9), now).is_ok(), "the log refuses old epochs");
        assert!(newcomers.admit(producer(7, 1, 1), now).is_err());
    }

    #[test]
    fn they_are_forgotten_in_time_and_when_there_are_more() {
        let (mut newcomers, now) = (Newcomers::default(), Instant::ZERO);
        for id in 0..=NEWCOMERS_MAX as i64 {
            assert!(newcomers.admit(producer(id, 0, 0), now).is_ok());
        }
        assert_eq!(newcomers.0.len(), NEWCOMERS_MAX);
        assert!(newcomers.admit(producer(1, 0, 1), now.after(NEWCOMER_AGE_MAX)).is_err());
        let later = now.after(NEWCOMER_AGE_MAX + Duration::from_secs(1));
        assert!(newcomers.admit(producer(1, 0, 1), later).is_ok());
        assert_eq!(newcomers.0.len(), 1);
    }
}
