//! A Rust source read without a parser: its code apart from its comments and literals, its functions, its tests.
//!
//! Knows just enough of the language's lexing to never take a brace in a string for code. It must not know any rule.

/// The text with comments and the contents of literals replaced by spaces; every line keeps its place and length.
pub(crate) fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = match literal_or_comment(&chars, at) {
            Some(end) => end.min(chars.len()),
            None => {
                out.push(chars[at]);
                at += 1;
                continue;
            }
        };
        out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
        at = end;
    }
    out
}

/// The end of the comment or literal that starts at `at`, if one does.
fn literal_or_comment(chars: &[char], at: usize) -> Option<usize> {
    let next = chars.get(at + 1).copied();
    match chars[at] {
        '/' if next == Some('/') => Some(position(chars, at, |c| c == '\n')),
        '/' if next == Some('*') => Some(block_comment_end(chars, at)),
        '"' => Some(string_end(chars, at + 1)),
        'r' if !continues_word(chars, at) => raw_string_end(chars, at),
        '\'' if next == Some('\\') => Some(position(chars, at + 3, |c| c == '\'') + 1),
        // A lifetime has no quote after its first character.
        '\'' if chars.get(at + 2) == Some(&'\'') => Some(at + 3),
        _ => None,
    }
}

fn position(chars: &[char], from: usize, wanted: impl Fn(char) -> bool) -> usize {
    (from..chars.len()).find(|i| wanted(chars[*i])).unwrap_or(chars.len())
}

/// True if the character before `at` makes `chars[at]` the middle of a word; `b` and `c` may stand before `r"`.
fn continues_word(chars: &[char], at: usize) -> bool {
    let is_word = |i: usize| chars[i].is_alphanumeric() || chars[i] == '_';
    match at.checked_sub(1) {
        Some(before) if matches!(chars[before], 'b' | 'c') => before > 0 && is_word(before - 1),
        Some(before) => is_word(before),
        None => false,
    }
}

fn block_comment_end(chars: &[char], at: usize) -> usize {
    let (mut depth, mut i) = (0usize, at);
    while i + 1 < chars.len() {
        match (chars[i], chars[i + 1]) {
            ('/', '*') => (depth, i) = (depth + 1, i + 2),
            ('*', '/') if depth == 1 => return i + 2,
            ('*', '/') => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
    }
    chars.len()
}

fn string_end(chars: &[char], from: usize) -> usize {
    let mut i = from;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

fn raw_string_end(chars: &[char], at: usize) -> Option<usize> {
    let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
    let open = at + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return None;
    }
    let closes =
        |i: usize| chars[i] == '"' && chars[i + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes;
    Some((open + 1..chars.len()).find(|i| closes(*i)).map_or(chars.len(), |i| i + 1 + hashes))
}

/// The number of lines before the inline test module.
pub(crate) fn lines_before_tests(text: &str) -> usize {
    let code = code_only(text);
    let lines: Vec<&str> = code.lines().map(str::trim).collect();
    let opens_tests = |at: &usize| {
        lines[*at] == "#[cfg(test)]"
            && lines[at + 1..]
                .iter()
                .find(|line| !line.is_empty() && !line.starts_with("#["))
                .is_some_and(|line| line.starts_with("mod "))
    };
    (0..lines.len()).find(opens_tests).unwrap_or(lines.len())
}

/// The code before the inline test module, without comments and literals.
pub(crate) fn shipped_code(text: &str) -> String {
    let code = code_only(text);
    code.lines().take(lines_before_tests(text)).collect::<Vec<_>>().join("\n")
}

/// One function with a body.
#[derive(Debug, PartialEq)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// Its first line, from 1.
    pub(crate) line: usize,
    /// From the line of `fn` to that of the closing brace.
    pub(crate) lines: usize,
}

/// All functions with a body, nested ones too.
pub(crate) fn functions(text: &str) -> Vec<Function> {
    let code = code_only(text);
    let bytes = code.as_bytes();
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_') {
            continue;
        }
        let rest = code[at + 3..].trim_start();
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if let (false, Some(end)) = (name.is_empty(), body_end(&bytes[at..])) {
            let line = 1 + code[..at].matches('\n').count();
            let lines = 1 + code[at..at + end].matches('\n').count();
            found.push(Function { name, line, lines });
        }
    }
    found
}

/// The end of the body of the function that starts here; `None` for a declaration without one.
fn body_end(code: &[u8]) -> Option<usize> {
    let (mut nested, mut braces) = (0i32, 0i32);
    for (i, byte) in code.iter().enumerate() {
        match byte {
            b'(' | b'[' => nested += 1,
            b')' | b']' => nested -= 1,
            b';' if nested == 0 && braces == 0 => return None,
            b'{' if nested == 0 || braces > 0 => braces += 1,
            b'}' if braces > 0 => braces -= 1,
            _ => continue,
        }
        if *byte == b'}' && braces == 0 && nested == 0 {
            return Some(i + 1);
        }
    }
    None
}

#[test]
fn comments_and_literals_are_not_code() {
    let text =
        "a /* { /* } */ { */ b // }\n\"{ \\\" {\" r#\"} \" {\"# '{' '\\'' '\\u{7d}' b'{' br\"{\" &'a x var\"{\" c";
    let code = code_only(text);
    assert_eq!(code.split_whitespace().collect::<Vec<_>>(), ["a", "b", "b", "b", "&'a", "x", "var", "c"]);
    assert_eq!(code.chars().count(), text.chars().count());
    assert_eq!(code.matches('\n').count(), 1);
}

#[test]
fn functions_are_measured() {
    let text = "trait T {\n    fn declared(&self) -> [u8; 4];\n}\n\nconst fn one() -> usize { [1; 2].len() }\n\
                fn three(f: fn(u8) -> u8) {\n    let s = \"}\";\n}\n";
    let found: Vec<_> = functions(text).into_iter().map(|f| (f.name, f.line, f.lines)).collect();
    assert_eq!(found, [("one".to_owned(), 5, 1), ("three".to_owned(), 6, 3)]);
}

#[test]
fn the_test_module_is_found_behind_other_test_items() {
    let text = "//! x\n#[cfg(test)]\nfn only_in_tests() {}\nfn f() {}\n#[cfg(test)]\n#[allow(x)]\nmod tests {\n}\n";
    assert_eq!(lines_before_tests(text), 4);
    assert_eq!(lines_before_tests("//! x\nfn f() {}\n"), 2);
    assert!(!shipped_code(text).contains("mod tests"));
}
