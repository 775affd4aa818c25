//! Tests of reading a stream.

use super::*;

#[test]
fn messages_are_cut_out_of_any_chunks() {
    let text = "retry: 1000\n: hello\n\nid: s:1\ndata: {\"a\":1}\n\n:\n\nevent: gap\r\nid:s:4\r\ndata:x\r\ndata: y\r\n\r\nid: s:5\ndata: torn";
    let message = |id: &str, event: &str, data: &str| Message {
        id: Some(id.to_owned()),
        event: event.to_owned(),
        data: data.to_owned(),
    };
    let expected = [message("s:1", "", "{\"a\":1}"), message("s:4", "gap", "x\ny")];
    for size in [1, 3, 1000] {
        let mut parser = Parser::default();
        let mut found = Vec::new();
        for chunk in text.as_bytes().chunks(size) {
            found.extend(parser.feed(chunk).unwrap());
        }
        assert_eq!(found, expected, "chunks of {size}");
    }
}

#[test]
fn an_endless_line_is_refused() {
    let mut parser = Parser::default();
    let chunk = vec![b'x'; LINE_BYTES_MAX];
    parser.feed(&chunk).unwrap();
    assert!(parser.feed(b"x").is_err());
}
