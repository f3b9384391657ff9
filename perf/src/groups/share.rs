//! Who gets which partitions, and the bytes in which consumers of the classic protocol say so
//! (Kafka's `ConsumerProtocol`, version 0). The broker does not look into them.

/// A subscription to `topic`. Another `round` makes other bytes: whoever joins again with them
/// begins a rebalance.
pub fn subscription(topic: &str, round: u32) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 0, 0, 1];
    put_text(&mut bytes, topic);
    bytes.extend(4i32.to_be_bytes());
    bytes.extend(round.to_be_bytes());
    bytes
}

/// Says that a member gets these `partitions` of `topic`.
pub fn assignment(topic: &str, partitions: &[i32]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 0, 0, 1];
    put_text(&mut bytes, topic);
    bytes.extend((partitions.len() as i32).to_be_bytes());
    partitions.iter().for_each(|partition| bytes.extend(partition.to_be_bytes()));
    bytes.extend((-1i32).to_be_bytes());
    bytes
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u16).to_be_bytes());
    bytes.extend(text.as_bytes());
}

/// The partitions of an [`assignment`]; `None` if it is none of `topic`.
pub fn assigned(bytes: &[u8], topic: &str) -> Option<Vec<i32>> {
    let head = assignment(topic, &[]).len() - 8;
    let count = bytes.get(head..head + 4)?.try_into().ok().map(i32::from_be_bytes)?;
    let partitions = bytes.get(head + 4..)?.chunks_exact(4).take(count as usize);
    let partitions: Vec<i32> =
        partitions.map(|four| i32::from_be_bytes(four.try_into().expect("four bytes"))).collect();
    (assignment(topic, &partitions) == bytes).then_some(partitions)
}

/// The partitions `0..partitions` in turn to each of `members`.
pub fn round_robin(partitions: i32, members: usize) -> Vec<Vec<i32>> {
    let of = |member: usize| (member as i32..partitions).step_by(members.max(1)).collect();
    (0..members).map(of).collect()
}

/// Whether `shares` hold each of `0..partitions` once and nothing else.
pub fn is_whole<'a>(shares: impl Iterator<Item = &'a [i32]>, partitions: i32) -> bool {
    let mut all: Vec<i32> = shares.flatten().copied().collect();
    all.sort_unstable();
    all.into_iter().eq(0..partitions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_is_read_as_it_was_written() {
        for partitions in [&[][..], &[3], &[0, 7, 999]] {
            let bytes = assignment("topic", partitions);
            assert_eq!(assigned(&bytes, "topic").as_deref(), Some(partitions));
            assert_eq!(assigned(&bytes, "other"), None);
            assert_eq!(assigned(&bytes[..bytes.len() - 1], "topic"), None);
        }
        assert_eq!(
            assignment("t", &[1]),
            b"\0\0\0\0\0\x01\0\x01t\0\0\0\x01\0\0\0\x01\xff\xff\xff\xff"
        );
        assert_ne!(subscription("t", 1), subscription("t", 2));
    }

    #[test]
    fn all_partitions_are_shared_out_once() {
        for (partitions, members) in [(1_000, 100), (7, 3), (2, 5)] {
            let shares = round_robin(partitions, members);
            assert_eq!(shares.len(), members);
            assert!(is_whole(shares.iter().map(Vec::as_slice), partitions));
            let sizes: Vec<usize> = shares.iter().map(Vec::len).collect();
            assert!(sizes.iter().max().unwrap_or(&0) - sizes.iter().min().unwrap_or(&0) <= 1);
        }
        assert!(!is_whole([&[0, 1][..], &[1, 2]].into_iter(), 3), "one has two owners");
        assert!(!is_whole([&[0][..], &[2]].into_iter(), 3), "one has none");
    }
}
