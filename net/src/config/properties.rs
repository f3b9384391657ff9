//! Reads the file format of Kafka's `server.properties` (Java's `Properties.load`), keeping the
//! line of each entry so that a complaint can name it. Text is UTF-8.
//!
//! Per Java: `#` and `!` begin a comment line; a key ends at the first unescaped `=`, `:` or
//! blank; a line whose last backslashes are odd in number continues on the next, whose leading
//! blanks are dropped; `\t \n \r \f` and `\uXXXX` are escapes, any other escaped character stands
//! for itself.

/// One entry of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Line on which it begins, from 1.
    pub line: usize,
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// A line that no entry can be read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Line on which the entry begins, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

/// All entries of `text`, in order.
pub fn parse(text: &str) -> Result<Vec<Entry>, Malformed> {
    let mut entries = Vec::new();
    let mut lines = text.lines().zip(1..);
    while let Some((first, line)) = lines.next() {
        let first = first.trim_start_matches(BLANKS);
        if first.is_empty() || first.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = first.to_string();
        while continues(&logical) {
            logical.pop();
            let Some((next, _)) = lines.next() else { break };
            logical.push_str(next.trim_start_matches(BLANKS));
        }
        let (key, value) = split(&logical);
        let unescape = |part| unescape(part).map_err(|reason| Malformed { line, reason });
        entries.push(Entry { line, key: unescape(key)?, value: unescape(value)? });
    }
    Ok(entries)
}

const BLANKS: [char; 3] = [' ', '\t', '\u{c}'];

/// Whether the line ends in an odd number of backslashes.
fn continues(line: &str) -> bool {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

/// The key and the value, both still escaped.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = line.char_indices().find(|(_, c)| {
        let ends = !escaped && (BLANKS.contains(c) || *c == '=' || *c == ':');
        escaped = *c == '\\' && !escaped;
        ends
    });
    let Some((end, _)) = end else { return (line, "") };
    let rest = line[end..].trim_start_matches(BLANKS);
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (&line[..end], rest.trim_start_matches(BLANKS))
}

fn unescape(text: &str) -> Result<String, String> {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    // UTF-16 units collected from neighbouring \u escapes: two may make one character.
    let mut units: Vec<u16> = Vec::new();
    loop {
        let next = chars.next();
        let escape = if next == Some('\\') { chars.next() } else { None };
        if escape == Some('u') {
            let digits = chars.as_str().get(..4).unwrap_or(chars.as_str());
            let unit = u16::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 4);
            let Some(unit) = unit.filter(|_| !digits.starts_with('+')) else {
                return Err(format!("\\u{digits} is not \\u and four hexadecimal digits"));
            };
            units.push(unit);
            chars.nth(3);
            continue;
        }
        if !units.is_empty() {
            let decoded = String::from_utf16(&units);
            plain += &decoded.map_err(|_| "a \\u escape is half a character".to_string())?;
            units.clear();
        }
        match (next, escape) {
            (None, _) => return Ok(plain),
            (Some('\\'), Some('t')) => plain.push('\t'),
            (Some('\\'), Some('n')) => plain.push('\n'),
            (Some('\\'), Some('r')) => plain.push('\r'),
            (Some('\\'), Some('f')) => plain.push('\u{c}'),
            (Some('\\'), Some(other)) => plain.push(other),
            // A last backslash at the end of the file continues into nothing.
            (Some('\\'), None) => (),
            (Some(other), _) => plain.push(other),
        }
    }
}

/// A value such that [`parse`] reads it back.
pub fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for (at, c) in value.chars().enumerate() {
        match c {
            '\\' => escaped += "\\\\",
            '\n' => escaped += "\\n",
            '\r' => escaped += "\\r",
            '\t' => escaped += "\\t",
            '\u{c}' => escaped += "\\f",
            ' ' | '=' | ':' if at == 0 => escaped.extend(['\\', c]),
            _ => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[(usize, &str, &str)]) {
        let entries = parse(text).unwrap();
        let found: Vec<_> = entries.iter().map(|e| (e.line, &*e.key, &*e.value)).collect();
        assert_eq!(found, expected, "{text:?}");
    }

    #[test]
    fn entries_are_read_as_java_reads_them() {
        check("a=b", &[(1, "a", "b")]);
        check("a = b \n", &[(1, "a", "b ")]);
        check(
            "a:b\na : b\na b\na\tb\na\n",
            &[(1, "a", "b"), (2, "a", "b"), (3, "a", "b"), (4, "a", "b"), (5, "a", "")],
        );
        check("a==b\na=:b\na = = b", &[(1, "a", "=b"), (2, "a", ":b"), (3, "a", "= b")]);
        check("# c\n  ! d\n\n \t\n  a=b\r\nc=d\r\n", &[(5, "a", "b"), (6, "c", "d")]);
        check("listeners=PLAINTEXT://:9092", &[(1, "listeners", "PLAINTEXT://:9092")]);
        check("a=#b", &[(1, "a", "#b")]);
        check("=b", &[(1, "", "b")]);
    }

    #[test]
    fn lines_continue_after_an_odd_number_of_backslashes() {
        check("a=b,\\\n   c,\\\n\td\ne=f", &[(1, "a", "b,c,d"), (4, "e", "f")]);
        check("a=b\\\\\nc=d", &[(1, "a", "b\\"), (2, "c", "d")]);
        check("a=b\\\\\\\nc=d", &[(1, "a", "b\\c=d")]);
        check("# comment\\\na=b", &[(2, "a", "b")]);
        check("a=b\\", &[(1, "a", "b")]);
        check("a\\\n=b", &[(1, "a", "b")]);
    }

    #[test]
    fn escapes_stand_for_what_java_says() {
        check("a\\=b=c", &[(1, "a=b", "c")]);
        check("a\\ b = c\\ ", &[(1, "a b", "c ")]);
        check("a=\\t\\n\\r\\f\\q\\\\", &[(1, "a", "\t\n\r\u{c}q\\")]);
        check("a=\\u00e4\\ud83d\\ude00x", &[(1, "a", "ä😀x")]);
        check("a=C:\\\\data", &[(1, "a", "C:\\data")]);
    }

    #[test]
    fn a_broken_escape_is_named_with_its_line() {
        for bad in ["a=\\u12", "a=\\u12g4", "a=\\u+123", "a=\\ud83d", "a=\\ud83dx", "a=\\uä"] {
            let malformed = parse(&format!("x=y\n\n{bad}\nz=1")).unwrap_err();
            assert_eq!(malformed.line, 3, "{bad}");
        }
    }

    #[test]
    fn an_escaped_value_is_read_back() {
        for value in ["", "a b ", " a", "=x", ":x", "C:\\x", "a\nb\r\t\u{c}", "ä=😀", "x\\"] {
            check(&format!("k={}", escape(value)), &[(1, "k", value)]);
        }
    }

    #[test]
    fn any_text_is_read_or_refused_but_never_fatal() {
        let mut state = 1u64;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..24 {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                text.push(
                    *b"ab=:\\\\u0d8\n\r \t#!".get((state >> 33) as usize % 17).unwrap_or(&b'f')
                        as char,
                );
            }
            let _ = parse(&text);
        }
    }
}
