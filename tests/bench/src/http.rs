//! The leanest HTTP/1.1 client that measures honestly: one connection that stays open, one write and usually one read
//! per request, no allocation. It knows only what the host's answers need: a status and `Content-Length`.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Answers are small; more is a mistake.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// An open connection.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens.
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(8 << 10) })
    }

    /// Sends a whole request and takes the answer: status and body.
    ///
    /// # Errors
    /// When the connection breaks or the answer can't be read.
    pub(crate) async fn call(&mut self, request: &[u8]) -> Result<(u16, &[u8])> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("the host closed the connection");
            }
            if let Some(head) = Head::parse(&self.buffer)?
                && self.buffer.len() >= head.body + head.body_bytes
            {
                let body = &self.buffer[head.body..head.body + head.body_bytes];
                return Ok((head.status, body));
            }
            if self.buffer.len() > ANSWER_BYTES_MAX {
                bail!("an answer has more than {ANSWER_BYTES_MAX} bytes");
            }
        }
    }
}

/// A POST with a text body.
pub(crate) fn post(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// The head of an answer.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    /// Where the body begins.
    body: usize,
    body_bytes: usize,
}

impl Head {
    /// Reads the head when all of it is there.
    fn parse(bytes: &[u8]) -> Result<Option<Self>> {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            return Ok(None);
        };
        let text = std::str::from_utf8(&bytes[..end]).context("the head of an answer is not text")?;
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let length = lines.find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
        });
        let Some(status) = status else {
            bail!("not an HTTP answer: {text:?}");
        };
        let body_bytes = match (status, length) {
            (204, None) => 0,
            (_, Some(length)) => length,
            (_, None) => bail!("an answer without a length: {text:?}"),
        };
        Ok(Some(Self { status, body: end + 4, body_bytes }))
    }
}

#[cfg(test)]
mod tests;
