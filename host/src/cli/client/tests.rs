//! Tests of reaching a host, or not.

use super::super::error::Exit;
use super::*;

fn exit_of(url: &str) -> Exit {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let asked = async {
        let client = Client::new(url, None)?;
        client.get("/v1/hosts").await
    };
    let error = runtime.expect("a runtime").block_on(asked).expect_err("nobody is there");
    error.exit()
}

#[test]
fn a_host_that_is_not_there_is_unreachable() {
    // It has the port, so that nobody else gets it, and does not listen.
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let address = socket.local_addr().expect("an address");
    assert_eq!(exit_of(&format!("http://{address}")), Exit::Unreachable);
}

#[test]
fn a_url_that_is_none_is_a_usage_error() {
    for url in ["", "127.0.0.1:7700", "http://", "ftp://127.0.0.1"] {
        assert_eq!(exit_of(url), Exit::Usage, "{url:?}");
    }
}
