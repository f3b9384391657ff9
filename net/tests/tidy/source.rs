//! Rust source as the rules see it: the code without comments and literals, cut into words.

/// One file.
pub struct Source {
    /// From the root of the repository, with `/`.
    pub path: String,
    /// As it is.
    pub text: String,
    /// With comments and the insides of literals blanked; lines keep their numbers.
    pub code: String,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), text: text.to_owned(), code: scrubbed(text) }
    }

    /// The words of the code with their lines, from 1: identifiers, and other characters singly.
    pub fn words(&self) -> Vec<(usize, &str)> {
        let lines = self.code.lines().enumerate();
        lines
            .flat_map(|(at, line)| words(line).into_iter().map(move |word| (at + 1, word)))
            .collect()
    }

    /// Lines in whose code these words follow each other.
    pub fn lines_with(&self, sequence: &[&str]) -> Vec<usize> {
        let words = self.words();
        let found = words
            .windows(sequence.len())
            .filter(|window| window.iter().zip(sequence).all(|((_, word), wanted)| word == wanted));
        found.map(|window| window[0].0).collect()
    }
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn words(line: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        let len = match is_of_word(first) {
            true => rest.find(|c| !is_of_word(c)).unwrap_or(rest.len()),
            false => first.len_utf8(),
        };
        words.push(&rest[..len]);
        rest = rest[len..].trim_start();
    }
    words
}

/// The parts of a name in snake or camel case, in lower case.
pub fn parts(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut before_was_capital = true;
    for c in name.chars() {
        if c == '_' || (c.is_uppercase() && !before_was_capital) {
            parts.push(String::new());
        }
        if c != '_' {
            parts.last_mut().expect("never empty").extend(c.to_lowercase());
        }
        before_was_capital = c.is_uppercase() || c == '_';
    }
    parts.retain(|part| !part.is_empty());
    parts
}

fn scrubbed(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = ' ';
    while let Some(first) = rest.chars().next() {
        let len = literal_len(rest, before);
        let (taken, left) = rest.split_at(len.unwrap_or(first.len_utf8()));
        match len {
            None => code.push(first),
            Some(_) => code.extend(taken.chars().map(|c| if c == '\n' { c } else { ' ' })),
        }
        before = first;
        rest = left;
    }
    code
}

/// How long the comment or literal is that begins here, if one does.
fn literal_len(rest: &str, before: char) -> Option<usize> {
    let until = |end: &str, from: usize| {
        rest[from..].find(end).map_or(rest.len(), |found| from + found + end.len())
    };
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(block_comment_len(rest));
    }
    if rest.starts_with('"') {
        return Some(quoted_len(rest, '"'));
    }
    if !is_of_word(before) {
        let raw = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'));
        let hashes = raw.map(|raw| raw.len() - raw.trim_start_matches('#').len());
        if let (Some(raw), Some(hashes)) = (raw, hashes)
            && raw[hashes..].starts_with('"')
        {
            let end = format!("\"{}", "#".repeat(hashes));
            return Some(until(&end, rest.len() - raw.len() + hashes + 1));
        }
    }
    // A character and not a lifetime: it ends after one, or begins with a backslash.
    let mut characters = rest.chars();
    let is_character = characters.next() == Some('\'')
        && match characters.next() {
            Some('\\') => true,
            Some(_) => characters.next() == Some('\''),
            None => false,
        };
    is_character.then(|| quoted_len(rest, '\''))
}

fn block_comment_len(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    loop {
        let here = &rest[at..];
        match here {
            _ if here.starts_with("/*") => (depth, at) = (depth + 1, at + 2),
            _ if here.starts_with("*/") => (depth, at) = (depth - 1, at + 2),
            _ => at += here.chars().next().map_or(0, char::len_utf8),
        }
        if depth == 0 || at >= rest.len() {
            return at;
        }
    }
}

fn quoted_len(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}

#[test]
fn comments_and_literals_are_no_code() {
    let text = "a // async\n/* async /* nested */ async */ b \"async \\\" async\" c\n\
                r#\"async \" async\"# 'x' '\\'' d<'e> br\"async\" for_async\n";
    let source = Source::new("x.rs", text);
    assert_eq!(source.lines_with(&["async"]), Vec::<usize>::new(), "{}", source.code);
    let words: Vec<_> = source.words().into_iter().map(|(_, word)| word).collect();
    assert_eq!(words, ["a", "b", "c", "d", "<", "'", "e", ">", "for_async"]);
    assert_eq!(Source::new("x.rs", "a\nb.await").lines_with(&[".", "await"]), [2]);
    assert_eq!(parts("TopicHandlerInfo"), ["topic", "handler", "info"]);
    assert_eq!(parts("my_util"), ["my", "util"]);
    assert_eq!(parts("HELPER_MAX"), ["helper", "max"]);
    assert_eq!(parts("metadata"), ["metadata"]);
}
