//! Which names a topic may have (Kafka's `Topic.validate`).

use super::{Refusal, Why};

/// Longest topic name, in characters (all are ASCII).
const NAME_CHARS_MAX: usize = 249;

/// Refuses a name that no topic can have, in Kafka's words.
pub fn check_topic_name(name: &str) -> Result<(), Refusal> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let reason = if name.is_empty() {
        "the empty string is not allowed".to_string()
    } else if name == "." || name == ".." {
        format!("'{name}' is not allowed")
    } else if name.len() > NAME_CHARS_MAX {
        format!("the length of '{name}' is longer than the max allowed length {NAME_CHARS_MAX}")
    } else if !name.chars().all(legal) {
        format!(
            "'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' \
             and '-'"
        )
    } else {
        return Ok(());
    };
    Err(Refusal::new(Why::TopicNameInvalid, format!("Topic name is invalid: {reason}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_refused_as_kafka_refuses_them() {
        for good in ["a", "A-b_c.9", "...", "-", "_", &"x".repeat(249)] {
            assert_eq!(check_topic_name(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "..", "a b", "a/b", "ä", "a\n", "a:b", &"x".repeat(250)] {
            assert_eq!(check_topic_name(bad).unwrap_err().why, Why::TopicNameInvalid, "{bad}");
        }
    }
}
