//! Tests of the batch view and of its check: one mutation per cause.

use super::*;

#[test]
fn sequences_wrap_at_their_maximum() {
    assert_eq!(Sequence::MAX.plus(1), Sequence::ZERO);
    assert_eq!(Sequence::ZERO.minus(1), Sequence::MAX);
    assert_eq!(Sequence::MAX.plus(5).minus(5), Sequence::MAX);
    assert_eq!(Sequence::from_wire(-1), None);
}
