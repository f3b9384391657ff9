//! Which partition of the internal topic a group's memory is in. Clients never compute it, but
//! brokers have to agree for ever: Kafka's choice.

/// The partition that holds `group`, of `partitions` (at least 1): Java's `String.hashCode` over
/// UTF-16 units, without its sign as Kafka's `Utils.abs` has it, modulo the number of partitions.
pub fn partition_of(group: &str, partitions: i32) -> i32 {
    assert!(partitions >= 1, "a topic without partitions");
    let step = |hash: i32, unit: u16| hash.wrapping_mul(31).wrapping_add(unit.into());
    let hash = group.encode_utf16().fold(0, step);
    // Kafka's `abs` makes 0 of the one number that has no positive counterpart.
    hash.checked_abs().unwrap_or(0) % partitions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_where_kafka_puts_them() {
        // Java: "hello".hashCode() = 99162322, "test".hashCode() = 3556498.
        assert_eq!(partition_of("", 50), 0);
        assert_eq!(partition_of("a", 50), 97 % 50);
        assert_eq!(partition_of("test", 50), 3_556_498 % 50);
        assert_eq!(partition_of("hello", 50), 99_162_322 % 50);
        assert_eq!(partition_of("hello", 7), 99_162_322 % 7);
        // The well-known string whose hash is Integer.MIN_VALUE.
        assert_eq!(partition_of("polygenelubricants", 50), 0);
        // "Aa" and "BB" share theirs, 2112.
        assert_eq!(partition_of("Aa", 1000), 112);
        assert_eq!(partition_of("BB", 1000), 112);
        // Outside the basic plane there are two units: U+1F600 is D83D DE00.
        assert_eq!(partition_of("\u{1F600}", i32::MAX), 0xD83D * 31 + 0xDE00);
        assert_eq!(partition_of("hello world", 50), 1_794_106_052 % 50);
        // Their hashes are negative: −1906497762 and −1008770331.
        assert_eq!(partition_of("my-group", 50), 12);
        assert_eq!(partition_of("orders", 50), 31);
    }
}
