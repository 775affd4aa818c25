//! Reading Rust well enough for the checks, without parsing it.
//!
//! `blanked` replaces comments, strings and characters by spaces, so that what is left is code in the same lines.
//! On that, `words`, `attributes` and `functions` find their things by matching brackets. They expect code that
//! compiles.

/// A word of the code: an identifier or keyword.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word<'a> {
    pub(crate) text: &'a str,
    /// Line, from 1.
    pub(crate) line: usize,
    /// What follows the word, to the end of the file.
    pub(crate) rest: &'a str,
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function<'a> {
    pub(crate) name: &'a str,
    /// Line of the `fn`, from 1.
    pub(crate) line: usize,
    /// From the line of the `fn` to that of the closing brace.
    pub(crate) lines: usize,
}

/// The text with everything but code turned to spaces; ASCII only, with the same lines.
pub(crate) fn blanked(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    let mut after_word = false;
    while let Some(first) = rest.chars().next() {
        let skipped = if after_word { None } else { prefixed_literal(rest) };
        let skipped = skipped.or_else(|| comment(rest)).or_else(|| literal(rest));
        let length = skipped.unwrap_or(first.len_utf8());
        let (piece, tail) = rest.split_at(length);
        let keeps = |c: char| c == '\n' || (skipped.is_none() && c.is_ascii());
        code.extend(piece.chars().map(|c| if keeps(c) { c } else { ' ' }));
        after_word = skipped.is_none() && is_word(first);
        rest = tail;
    }
    code
}

/// Length of the comment that `text` starts with.
fn comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    let mut depth = 0;
    let mut at = 0;
    loop {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if depth == 0 {
            return None;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return Some(at);
            }
        } else {
            match rest.chars().next() {
                Some(c) => at += c.len_utf8(),
                None => return Some(at),
            }
        }
    }
}

/// Length of the literal with a prefix that `text` starts with: `b".."`, `c".."`, `b'.'`, `r".."`, `br#".."#`.
fn prefixed_literal(text: &str) -> Option<usize> {
    let raw = text.strip_prefix("br").or_else(|| text.strip_prefix("cr")).or_else(|| text.strip_prefix('r'));
    if let Some(after_prefix) = raw {
        let hashes = after_prefix.bytes().take_while(|&b| b == b'#').count();
        // `r#type` is a raw identifier, not a string.
        if let Some(body) = after_prefix[hashes..].strip_prefix('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let length = body.find(&end).map_or(body.len(), |at| at + end.len());
            return Some(text.len() - body.len() + length);
        }
    }
    let after_prefix = text.strip_prefix(['b', 'c'])?;
    literal(after_prefix).map(|length| length + 1)
}

/// Length of the plain string or character that `text` starts with; `None` for a lifetime.
fn literal(text: &str) -> Option<usize> {
    let quote = text.chars().next().filter(|&c| c == '"' || c == '\'')?;
    let body = &text[1..];
    if quote == '\'' && !body.starts_with('\\') {
        let character = body.chars().next()?;
        return body[character.len_utf8()..].starts_with('\'').then(|| character.len_utf8() + 2);
    }
    let mut is_escaped = false;
    for (at, c) in body.char_indices() {
        if !is_escaped && c == quote {
            return Some(at + 2);
        }
        is_escaped = !is_escaped && c == '\\';
    }
    Some(text.len())
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The words of blanked code, in order.
pub(crate) fn words(code: &str) -> impl Iterator<Item = Word<'_>> {
    let mut rest = code;
    let mut line = 1;
    std::iter::from_fn(move || {
        let start = rest.find(is_word)?;
        line += newlines(&rest[..start]);
        let word = &rest[start..];
        let length = word.find(|c| !is_word(c)).unwrap_or(word.len());
        let (text, after) = word.split_at(length);
        rest = after;
        Some(Word { text, line, rest })
    })
}

/// The attributes of blanked code: the line each starts in and what is between its brackets.
pub(crate) fn attributes(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.match_indices('#').filter_map(|(at, _)| {
        let after = code[at + 1..].trim_start();
        let after = after.strip_prefix('!').unwrap_or(after).trim_start();
        let inner = bracketed(after, '[', ']')?;
        Some((1 + newlines(&code[..at]), inner))
    })
}

/// The functions of blanked code that have a body, but not those that a `macro_rules!` generates.
pub(crate) fn functions(code: &str) -> Vec<Function<'_>> {
    let mut found = Vec::new();
    // Where the macro definition that we are in ends, as the length of what follows it.
    let mut macro_rest = usize::MAX;
    for word in words(code) {
        if word.text == "macro_rules" {
            let definition =
                word.rest.find('{').and_then(|at| Some((at, bracketed(&word.rest[at..], '{', '}')?)));
            macro_rest = definition.map_or(usize::MAX, |(at, inner)| word.rest.len() - at - inner.len());
        }
        let is_in_macro = macro_rest != usize::MAX && word.rest.len() > macro_rest;
        if word.text == "fn" && !is_in_macro {
            found.extend(function(word));
        }
    }
    found
}

/// The function whose `fn` this is; `None` for a function type and for a declaration without body.
fn function(keyword: Word<'_>) -> Option<Function<'_>> {
    let name = words(keyword.rest).next()?;
    let between = &keyword.rest[..keyword.rest.len() - name.rest.len() - name.text.len()];
    if !between.trim().is_empty() {
        return None;
    }
    let mut depth = 0_usize;
    let body = name.rest.char_indices().find_map(|(at, c)| {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        (depth == 0 && matches!(c, '{' | ';')).then_some(at)
    })?;
    let inner = bracketed(&name.rest[body..], '{', '}')?;
    let lines = 1 + newlines(between) + newlines(&name.rest[..body]) + newlines(inner);
    Some(Function { name: name.text, line: keyword.line, lines })
}

/// What is between the bracket that `code` starts with and the one that closes it.
fn bracketed(code: &str, open: char, close: char) -> Option<&str> {
    if !code.starts_with(open) {
        return None;
    }
    let mut depth = 0_usize;
    for (at, c) in code.char_indices() {
        if c == open {
            depth += 1;
        } else if c == close {
            depth -= 1;
            if depth == 0 {
                return Some(&code[open.len_utf8()..at]);
            }
        }
    }
    None
}

fn newlines(text: &str) -> usize {
    text.bytes().filter(|&b| b == b'\n').count()
}

#[cfg(test)]
mod tests;
