//! Subscriptions by regular expression (KIP-848, in RE2's syntax, which the `regex` crate shares).

use std::collections::BTreeSet;

use regex::{Regex, RegexBuilder};

use super::topics::Topics;

/// Most memory that one compiled expression may take, in bytes. What a client may write is longer
/// than that quickly: `(a{1000}){1000}`.
pub const COMPILED_BYTES_MAX: usize = 1 << 20;

/// Longest expression, in bytes; it is part of a key in the log.
pub const PATTERN_BYTES_MAX: usize = 4096;

/// Compiles an expression that has to match whole names. The error says in words what is wrong.
pub fn compile(text: &str) -> Result<Regex, String> {
    if text.len() > PATTERN_BYTES_MAX {
        return Err(format!("longer than {PATTERN_BYTES_MAX} bytes"));
    }
    let build = |text: &str| {
        let mut builder = RegexBuilder::new(text);
        builder.size_limit(COMPILED_BYTES_MAX).dfa_size_limit(COMPILED_BYTES_MAX).build()
    };
    // By itself first: what is wrong only without the frame, such as `a)(b`, is wrong.
    build(text).and_then(|_| build(&format!(r"\A(?:{text})\z"))).map_err(|error| error.to_string())
}

/// The names that an expression stands for, of all that there are.
pub fn resolve(compiled: &Regex, topics: &dyn Topics) -> BTreeSet<String> {
    topics.names().filter(|name| compiled.is_match(name)).map(String::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(text: &str, name: &str) -> bool {
        compile(text).expect("valid").is_match(name)
    }

    #[test]
    fn whole_names_are_matched() {
        assert!(matches("foo.*", "foo-1"));
        assert!(!matches("foo", "foo-1"));
        assert!(!matches("oo", "foo"));
        assert!(matches("a|b", "b"));
        assert!(!matches("a|b", "ab"));
        assert!(matches(r"[a-z]+\d", "x9"));
        assert!(matches("(?i)FOO", "foo"));
    }

    #[test]
    fn what_is_no_expression_or_too_large_is_refused() {
        for text in ["(", "a)(b", "[", "*", "(?<=a)b", r"(a)\1", "(a{1000}){1000}"] {
            assert!(compile(text).is_err(), "{text}");
        }
        assert!(compile(&"a".repeat(PATTERN_BYTES_MAX + 1)).is_err());
        assert!(compile(&"a".repeat(1_000)).is_ok());
    }
}
