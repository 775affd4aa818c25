//! The scanner on the places where Rust is hard to read.

use super::*;

/// Blanks `text` and shrinks runs of spaces, so that cases are easy to write.
fn shown(text: &str) -> String {
    let code = blanked(text);
    assert_eq!(newlines(&code), newlines(text), "{text}");
    code.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn everything_but_code_is_blanked() {
    let cases = [
        ("a // b\nc", "a c"),
        ("a /* b /* c */ d */ e", "a e"),
        ("a /* never closed", "a"),
        (r#"f("fn x() { \" }", y)"#, "f( , y)"),
        (r##"f(r#"a " b"#, y)"##, "f( , y)"),
        (r#"f(br"\", y)"#, "f( , y)"),
        (r#"f(b"x", c"x", b'x', cr"x")"#, "f( , , , )"),
        (r"f('{', '\'', '\u{7b}', '\\')", "f( , , , )"),
        ("f<'a>(x: &'a str) -> &'static str", "f<'a>(x: &'a str) -> &'static str"),
        ("'outer: loop { break 'outer; }", "'outer: loop { break 'outer; }"),
        ("let r#type = r#fn;", "let r#type = r#fn;"),
        ("bar\"x\"", "bar"),
        ("let ä = 'ö';", "let = ;"),
        ("\"line one\nline two\" x", "x"),
    ];
    for (text, expected) in cases {
        assert_eq!(shown(text), expected, "{text}");
    }
}

#[test]
fn words_know_their_lines() {
    let found: Vec<_> = words("use a::b;\n\nfn c_1() {}").map(|word| (word.text, word.line)).collect();
    assert_eq!(found, [("use", 1), ("a", 1), ("b", 1), ("fn", 3), ("c_1", 3)]);
}

#[test]
fn attributes_are_found_with_inner_brackets() {
    let code = "#![deny(x)]\n# [cfg(any(a, b))]\n#[x = [1, 2]] fn f() {}\nlet r#type = 1;";
    let found: Vec<_> = attributes(code).collect();
    assert_eq!(found, [(1, "deny(x)"), (2, "cfg(any(a, b))"), (3, "x = [1, 2]")]);
}

#[test]
fn functions_are_measured() {
    let text = "\
trait T { fn declared(&self) -> [u8; 3]; fn given(&self) {} }
fn generic<const N: usize>(
    f: fn(u8) -> u8,
    x: [u8; { N }],
) -> impl Fn() -> u8
where
    u8: Copy,
{
    // a brace in a comment: }
    let text = \"}\";
    fn inner() {
    }
}
macro_rules! generated {
    () => { fn hidden() {
    } };
}
fn last() {}
";
    let code = blanked(text);
    let found: Vec<_> = functions(&code).iter().map(|f| (f.name, f.line, f.lines)).collect();
    assert_eq!(found, [("given", 1, 1), ("generic", 2, 12), ("inner", 11, 2), ("last", 18, 1)]);
}
