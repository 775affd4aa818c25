//! SPDX licence expressions: `MIT OR (Apache-2.0 WITH LLVM-exception AND Zlib)`.
//!
//! Also the older form in which `/` stands for `OR`.

/// Tells whether a licence expression can be met with allowed licences only. An `X WITH Y` has to be allowed as such.
///
/// `None` when the text is not an expression.
pub(crate) fn is_allowed(expression: &str, allowed: &[String]) -> Option<bool> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser { tokens: &tokens, allowed };
    let result = parser.any_of()?;
    parser.tokens.is_empty().then_some(result)
}

/// What is left to read. Each method reads one level of the grammar and returns whether it is allowed.
struct Parser<'a> {
    tokens: &'a [&'a str],
    allowed: &'a [String],
}

impl<'a> Parser<'a> {
    /// `all_of (OR all_of)*`
    fn any_of(&mut self) -> Option<bool> {
        let mut result = self.all_of()?;
        while self.take("OR") {
            result |= self.all_of()?;
        }
        Some(result)
    }

    /// `one (AND one)*`
    fn all_of(&mut self) -> Option<bool> {
        let mut result = self.one()?;
        while self.take("AND") {
            result &= self.one()?;
        }
        Some(result)
    }

    /// `( any_of )`, `LICENCE` or `LICENCE WITH EXCEPTION`
    fn one(&mut self) -> Option<bool> {
        if self.take("(") {
            let result = self.any_of()?;
            return self.take(")").then_some(result);
        }
        let licence = self.name()?;
        let full =
            if self.take("WITH") { format!("{licence} WITH {}", self.name()?) } else { licence.to_owned() };
        Some(self.allowed.contains(&full))
    }

    fn name(&mut self) -> Option<&'a str> {
        let (first, rest) = self.tokens.split_first()?;
        if matches!(*first, "OR" | "AND" | "WITH" | "(" | ")") {
            return None;
        }
        self.tokens = rest;
        Some(first)
    }

    fn take(&mut self, token: &str) -> bool {
        match self.tokens.split_first() {
            Some((first, rest)) if *first == token => {
                self.tokens = rest;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;
