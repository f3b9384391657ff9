//! Where two logs part, by their leader epochs (KIP-101, KIP-279, KIP-595). Pure arithmetic.
//!
//! Records of one epoch are written by one leader, in order, so that two logs which hold a record
//! of the same epoch at the same offset are equal up to there. The leader compares the last epoch
//! and the end of a follower with its own history; where they do not fit, it names the largest
//! epoch that both may share and where that ended. The follower cuts there, and asks again until
//! they fit. A high watermark is never asked.

use engine::epochs::{EpochEnd, EpochStart, Epochs};
use engine::ids::{LeaderEpoch, Offset};

use crate::ask::{FetchFault, Position};
use crate::mutant::Mutant;

/// What the cores must know of a log.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// First readable offset.
    pub start: Offset,
    /// Log end offset.
    pub end: Offset,
    /// Everything below is durable in the class that the topic asks for; at most `end`.
    pub durable_end: Offset,
    /// Which leader wrote what. Only terms that wrote have an entry.
    pub epochs: &'a Epochs,
}

impl View<'_> {
    /// Where this log ends.
    pub fn position(&self) -> Position {
        let last_epoch = self.epochs.latest().map(|latest| latest.epoch);
        Position { offset: self.end, last_epoch }
    }
}

/// Where `epoch` ended in the log of a leader whose own term is `term`: the largest epoch not
/// above the one asked for, and its exclusive end. `None`: it is above the leader's own.
///
/// A term has an entry in the log only once it wrote something. Its start counts before that, too
/// (KAFKA-7415), or a follower with records of a term in between would seem to fit.
pub fn end_of(
    view: &View<'_>,
    term: EpochStart,
    epoch: LeaderEpoch,
    mutant: Option<Mutant>,
) -> Option<EpochEnd> {
    if epoch > term.epoch {
        return None;
    }
    if epoch == term.epoch {
        return Some(EpochEnd { epoch, end: view.end });
    }
    if let Some(found) = view.epochs.end_of(epoch, view.end)
        && view.epochs.latest().is_some_and(|latest| latest.epoch > epoch)
    {
        return Some(found);
    }
    // Nothing above it was written: it ended where this term began.
    if mutant == Some(Mutant::ForgetEpochStart) {
        return Some(EpochEnd { epoch, end: view.end });
    }
    let epoch = view.epochs.latest().map_or(epoch, |latest| latest.epoch);
    Some(EpochEnd { epoch, end: term.start })
}

/// Leader's side: where a follower at `position` parts from this log; `None` if it does not, and
/// then everything that it has is here, too.
pub fn parting(
    view: &View<'_>,
    term: EpochStart,
    position: Position,
    mutant: Option<Mutant>,
) -> Result<Option<EpochEnd>, FetchFault> {
    if let Some(last) = position.last_epoch {
        let found = end_of(view, term, last, mutant).ok_or(FetchFault::UnknownEpoch)?;
        let other = found.epoch < last && mutant != Some(Mutant::CompareOffsetsOnly);
        if other || found.end < position.offset {
            return Ok(Some(found));
        }
        // All that it has lies before this log's start, and of another epoch than anything here:
        // nobody can tell whether it is what was deleted. It is of no use either.
        let earliest = view.epochs.earliest().map_or(term.epoch, |first| first.epoch);
        if last < earliest && position.offset <= view.start {
            return Err(FetchFault::OutOfRange { start: view.start, end: view.end });
        }
    }
    if position.offset < view.start || position.offset > view.end {
        return Err(FetchFault::OutOfRange { start: view.start, end: view.end });
    }
    Ok(None)
}

/// Follower's side: where to cut, given what the leader said. Below the log's end whenever the
/// leader's answer was to this log, so that the two come together after finitely many rounds.
pub fn truncation(view: &View<'_>, leader: EpochEnd) -> Offset {
    let mine = view.epochs.end_of(leader.epoch, view.end);
    let mine = mine.map_or(view.end, |mine| mine.end);
    mine.min(leader.end).clamp(view.start, view.end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn epochs(entries: &[(i32, u64)]) -> Epochs {
        let at = |&(epoch, start)| start_of(epoch, start);
        Epochs::from_entries(&entries.iter().map(at).collect::<Vec<_>>()).unwrap()
    }

    fn start_of(epoch: i32, start: u64) -> EpochStart {
        EpochStart { epoch: LeaderEpoch(epoch), start: Offset::new(start) }
    }

    fn view(epochs: &Epochs, start: u64, end: u64) -> View<'_> {
        let (start, end) = (Offset::new(start), Offset::new(end));
        View { start, end, durable_end: end, epochs }
    }

    fn at(epoch: i32, offset: u64) -> Position {
        let last_epoch = (epoch >= 0).then_some(LeaderEpoch(epoch));
        Position { offset: Offset::new(offset), last_epoch }
    }

    fn ended(epoch: i32, end: u64) -> EpochEnd {
        EpochEnd { epoch: LeaderEpoch(epoch), end: Offset::new(end) }
    }

    #[test]
    fn a_leader_names_the_epoch_that_both_may_share() {
        let history = epochs(&[(1, 0), (3, 10)]);
        let (log, term) = (view(&history, 0, 20), start_of(6, 15));
        let parting = |position| super::parting(&log, term, position, None).unwrap();
        assert_eq!(parting(at(3, 15)), None);
        assert_eq!(parting(at(3, 16)), Some(ended(3, 15)), "beyond its end (KIP-101)");
        assert_eq!(parting(at(2, 10)), Some(ended(1, 10)), "same end, other epoch (KIP-279)");
        assert_eq!(parting(at(5, 15)), Some(ended(3, 15)), "a term that wrote nothing here");
        assert_eq!(parting(at(1, 4)), None);
        assert_eq!(parting(at(-1, 0)), None, "an empty log parts from none");
        let newer = super::parting(&log, term, at(7, 3), None);
        assert_eq!(newer, Err(FetchFault::UnknownEpoch));
        let kept = epochs(&[(3, 12)]);
        let deleted = view(&kept, 12, 20);
        let range = FetchFault::OutOfRange { start: Offset::new(12), end: Offset::new(20) };
        assert_eq!(super::parting(&deleted, term, at(1, 4), None), Err(range));
        assert_eq!(super::parting(&deleted, term, at(2, 12), None), Err(range), "cannot be told");
        assert_eq!(super::parting(&deleted, term, at(-1, 12), None), Ok(None));
    }

    #[test]
    fn a_follower_cuts_where_its_own_part_of_that_epoch_ends() {
        let history = epochs(&[(1, 0), (2, 8), (4, 12)]);
        let log = view(&history, 0, 20);
        assert_eq!(truncation(&log, ended(3, 10)), Offset::new(10));
        assert_eq!(truncation(&log, ended(3, 15)), Offset::new(12), "4 is not the leader's");
        assert_eq!(truncation(&log, ended(4, 16)), Offset::new(16));
        assert_eq!(truncation(&log, ended(0, 0)), Offset::ZERO);
    }

    /// Two logs with a shared beginning: after the rounds of asking and cutting what is left of
    /// the follower's is the leader's, and nothing that both had was cut but whole common epochs'
    /// ends that cannot be told apart.
    fn converge(leader: &[i32], follower: &[i32], term: i32) -> usize {
        let of = |log: &[i32]| {
            let mut epochs = Epochs::default();
            for (offset, &epoch) in log.iter().enumerate() {
                epochs.assign(LeaderEpoch(epoch), Offset::new(offset as u64)).unwrap();
            }
            epochs
        };
        let theirs = of(leader);
        let term = start_of(term, leader.len() as u64);
        let mut end = follower.len();
        for _round in 0..=follower.len() {
            let mine = of(&follower[..end]);
            let log = view(&mine, 0, end as u64);
            let asked = log.position();
            let whole = view(&theirs, 0, leader.len() as u64);
            match parting(&whole, term, asked, None).expect("in range") {
                None => return end,
                Some(found) => {
                    let to = truncation(&log, found).value() as usize;
                    assert!(to < end, "a round that cuts nothing would never end");
                    end = to;
                }
            }
        }
        panic!("it does not end");
    }

    proptest! {
        #[test]
        fn logs_come_together_where_they_part(
            common in prop::collection::vec(0..2i32, 0..12),
            tails in prop::collection::vec((0..3i32, any::<bool>()), 0..14),
        ) {
            // Epochs rise; each belongs to one of the two tails.
            let mut term = 0;
            let mut shared = Vec::new();
            for step in common {
                term += step;
                shared.push(term);
            }
            let (mut leader, mut follower) = (shared.clone(), shared.clone());
            term += 1;
            let mut owner = true;
            for (step, mine) in tails {
                if step > 0 || mine != owner {
                    term += 1 + step;
                    owner = mine;
                }
                if owner { leader.push(term) } else { follower.push(term) }
            }
            let end = converge(&leader, &follower, term + 1);
            prop_assert_eq!(end, shared.len());
        }
    }
}
