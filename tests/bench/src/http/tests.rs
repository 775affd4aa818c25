//! Heads of answers.

use super::*;

#[test]
fn a_head_is_read_once_it_is_whole() {
    let answer = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nContent-Length: 2\r\n\r\nok";
    for end in 0..answer.len() - 2 {
        assert_eq!(Head::parse(&answer[..end]).expect("a beginning is no mistake"), None);
    }
    let head = Head::parse(answer).expect("readable").expect("whole");
    assert_eq!((head.status, &answer[head.body..], head.body_bytes), (200, &b"ok"[..], 2));
}

#[test]
fn an_empty_answer_needs_no_length() {
    let head = Head::parse(b"HTTP/1.1 204 No Content\r\n\r\n").expect("readable").expect("whole");
    assert_eq!((head.status, head.body_bytes), (204, 0));
}

#[test]
fn what_is_no_answer_is_refused() {
    assert!(Head::parse(b"hello\r\n\r\n").is_err());
    assert!(Head::parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
}
