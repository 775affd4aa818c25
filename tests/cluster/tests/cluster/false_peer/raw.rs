//! A peer that keeps to no rule: QUIC by iroh, and frames, greetings and messages written here once more, byte by byte. What
//! changes on the wire has to be changed here by hand.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use godwit_core::digest::Digest;
use godwit_core::id::{AgentId, FencingToken, Generation, HostId, MigrationId, Revision};
use godwit_core::identity::{EntityPublicKey, SignedStatement};
use godwit_core::input::NewInput;
use godwit_core::spec::{PluginInfo, Spec};
use godwit_core::store::RowFrame;
use godwit_support::host::Host;
use iroh::endpoint::{Connection, ConnectionError, RecvStream, SendStream, presets};
use iroh::{Endpoint, EndpointAddr, PublicKey, RelayMode, SecretKey};
use serde::Serialize;

use crate::room::SOON;

const ALPN: &[u8] = b"godwit-mesh";
/// The newest version.
pub(crate) const PROTOCOL: u8 = 2;
const HEADER_BYTES: usize = 44;

pub(crate) const HELLO: u8 = 1;
pub(crate) const WELCOME: u8 = 2;
pub(crate) const REFUSED: u8 = 3;
pub(crate) const REQUEST: u8 = 6;
pub(crate) const ANSWER: u8 = 7;
pub(crate) const BULK_OPEN: u8 = 8;
pub(crate) const BULK_RESUME: u8 = 9;
pub(crate) const BULK_CHUNK: u8 = 10;

/// A frame of any kind and length.
pub(crate) fn frame(version: u8, kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("tests send little");
    let mut head = [b"gdwm", &[version, kind, 0, 0][..], &length.to_le_bytes()].concat();
    let digest = blake3::Hasher::new().update(&head).update(body).finalize();
    head.extend_from_slice(digest.as_bytes());
    head.extend_from_slice(body);
    head
}

/// The next frame's kind and body.
pub(crate) async fn read_frame(recv: &mut RecvStream) -> Result<(u8, Bytes)> {
    let mut head = [0; HEADER_BYTES];
    let read = async {
        recv.read_exact(&mut head).await?;
        let length = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
        let mut body = vec![0; length as usize];
        recv.read_exact(&mut body).await?;
        Ok::<_, anyhow::Error>((head[5], Bytes::from(body)))
    };
    tokio::time::timeout(SOON, read).await.context("no frame in time")?
}

/// A request, as the host's messages are.
#[derive(Serialize)]
#[expect(dead_code, reason = "some stand here only for the numbers of those behind them")]
pub(crate) enum Request {
    Hello,
    WhoIsHome { agent: AgentId },
    Call,
    Deliver { inputs: Vec<NewInput>, statement: Option<Box<SignedStatement>> },
    Migration { id: MigrationId, agent: AgentId, message: Message },
    Claim { agent: AgentId },
}

#[derive(Serialize)]
pub(crate) enum Message {
    Reserve(Box<Reservation>),
    Restore { revision: Revision },
    Prepare(Box<Preparation>),
    Activate { token: FencingToken },
    Abort,
    WhatHaveYou,
    WhatBecame,
}

#[derive(Serialize)]
pub(crate) struct Reservation {
    pub(crate) token: FencingToken,
    pub(crate) generation: Generation,
    pub(crate) revision: Revision,
    pub(crate) plugin: PluginInfo,
    pub(crate) spec: Spec,
    pub(crate) public_key: Option<EntityPublicKey>,
    pub(crate) residency: Option<String>,
    pub(crate) is_shared: bool,
    pub(crate) deadline_ms: u64,
}

#[derive(Serialize)]
pub(crate) struct Preparation {
    pub(crate) granted: FencingToken,
    pub(crate) generation: Generation,
    pub(crate) revision: Revision,
    pub(crate) frames: Vec<RowFrame>,
    pub(crate) bundle: Digest,
}

#[derive(Serialize)]
pub(crate) enum BulkHeader {
    Rows { id: MigrationId, agent: AgentId },
    Plugin { id: MigrationId, plugin: PluginInfo },
    PackedRows { id: MigrationId, agent: AgentId, bytes: u64 },
}

/// A message with its version byte.
pub(crate) fn message(message: &impl Serialize) -> Vec<u8> {
    let body = postcard::to_stdvec(message).expect("plain values can be written");
    [&[PROTOCOL][..], &body].concat()
}

/// What a host said, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// The mesh's typed no: its number.
    MeshRefused(u8),
    /// The host can't or won't read it.
    Malformed,
    /// Not now.
    NotNow,
    /// An answer about a migration, by its number.
    Migration(u8, String),
    /// What became of a delivery, by its number.
    Delivered(u8),
    /// Another answer, by its number.
    Other(u8),
}

/// Numbers of answers about migrations.
pub(crate) const OK: u8 = 0;
pub(crate) const MIGRATION_REFUSED: u8 = 5;
/// The guest can't be built, or the copy is not whole.
pub(crate) const STATE_FAILED: u8 = 8;
pub(crate) const NOT_READY: u8 = 6;
pub(crate) const NOTHING: u8 = 11;

impl Said {
    fn of(kind: u8, body: &[u8]) -> Result<Self> {
        if kind == REFUSED {
            return Ok(Self::MeshRefused(*body.first().context("an empty refusal")?));
        }
        ensure!(kind == ANSWER, "a frame of kind {kind} is no answer");
        let (number, rest) = (*body.get(1).context("an empty answer")?, body.get(2..).unwrap_or_default());
        Ok(match number {
            // How many there are, and the first.
            3 => Self::Delivered(*rest.get(1).context("no outcome")?),
            4 => Self::Migration(
                *rest.first().context("no outcome")?,
                String::from_utf8_lossy(rest).chars().filter(|c| !c.is_control()).collect(),
            ),
            5 => Self::Malformed,
            9 => Self::NotNow,
            other => Self::Other(other),
        })
    }

    /// Whether it is a no.
    pub(crate) fn is_no(&self) -> bool {
        matches!(
            self,
            Self::MeshRefused(_)
                | Self::Malformed
                | Self::NotNow
                | Self::Migration(MIGRATION_REFUSED | NOTHING, _)
        )
    }
}

/// What a host has sent to the false peer, which played the target of a migration.
#[derive(Debug, Default)]
pub(crate) struct Recording {
    /// Bodies of requests, in order.
    pub(crate) requests: Vec<Bytes>,
    /// Headers and bodies of transfers, in order.
    pub(crate) bulks: Vec<(Bytes, Bytes)>,
}

/// The peer.
pub(crate) struct Raw {
    endpoint: Endpoint,
    /// Its key, in hexadecimal digits.
    pub(crate) key: String,
    instance: [u8; 16],
}

impl Raw {
    pub(crate) async fn start(seed: u8) -> Result<Self> {
        Self::with_key([seed; 32]).await
    }

    pub(crate) async fn with_key(secret: [u8; 32]) -> Result<Self> {
        let secret = SecretKey::from_bytes(&secret);
        let host = HostId(*secret.public().as_bytes());
        let endpoint = Endpoint::builder(presets::Minimal)
            .secret_key(secret)
            .relay_mode(RelayMode::Disabled)
            .clear_address_lookup()
            .clear_ip_transports()
            .bind_addr(std::net::SocketAddr::from(([127, 0, 0, 1], 0)))?
            .alpns(vec![ALPN.to_vec()])
            .bind()
            .await?;
        Ok(Self { endpoint, key: host.to_string(), instance: [seed_of(host); 16] })
    }

    /// As `--peer` takes it.
    pub(crate) fn peer(&self) -> Result<String> {
        let address = self.endpoint.bound_sockets().into_iter().next().context("it has no socket")?;
        Ok(format!("{}@{address}", self.key))
    }

    /// A connection on which nothing was said.
    pub(crate) async fn connect(&self, host: &Host) -> Result<Connection> {
        let key: HostId = host.key().parse()?;
        let address = EndpointAddr::new(PublicKey::from_bytes(&key.0)?).with_ip_addr(host.ready().mesh);
        let connected = tokio::time::timeout(SOON, self.endpoint.connect(address, ALPN)).await?;
        Ok(connected?)
    }

    /// A connection over which requests may be sent.
    pub(crate) async fn greeted(&self, host: &Host) -> Result<Connection> {
        let connection = self.connect(host).await?;
        let (kind, body) = self.greet(&connection, 1, PROTOCOL).await?;
        ensure!((kind, body.first()) == (WELCOME, Some(&PROTOCOL)), "greeted with kind {kind}: {body:?}");
        Ok(connection)
    }

    /// Greets with a range of versions. Answers the frame that comes back.
    pub(crate) async fn greet(&self, connection: &Connection, min: u8, max: u8) -> Result<(u8, Bytes)> {
        let (mut send, mut recv) = connection.open_bi().await?;
        let hello = [&[min, max][..], &self.instance, &[0]].concat();
        send.write_all(&frame(0, HELLO, &hello)).await?;
        read_frame(&mut recv).await
    }

    /// Takes the part of the target of one migration: records everything, says yes to all, and no to `Prepare`.
    pub(crate) fn record(&self) -> Arc<Mutex<Recording>> {
        let recording = Arc::new(Mutex::new(Recording::default()));
        let (endpoint, to) = (self.endpoint.clone(), recording.clone());
        let instance = self.instance;
        tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                let to = to.clone();
                tokio::spawn(async move { serve(incoming.await?, instance, to).await });
            }
        });
        recording
    }
}

fn seed_of(host: HostId) -> u8 {
    host.0[0]
}

async fn serve(connection: Connection, instance: [u8; 16], to: Arc<Mutex<Recording>>) -> Result<()> {
    loop {
        let (send, recv) = connection.accept_bi().await?;
        let to = to.clone();
        tokio::spawn(async move { answer(send, recv, instance, to).await });
    }
}

async fn answer(
    mut send: SendStream,
    mut recv: RecvStream,
    instance: [u8; 16],
    to: Arc<Mutex<Recording>>,
) -> Result<()> {
    let (kind, body) = read_frame(&mut recv).await?;
    let record = |keep: &dyn Fn(&mut Recording)| keep(&mut to.lock().expect("nobody panics with it"));
    match kind {
        HELLO => {
            let welcome = [&[PROTOCOL][..], &instance].concat();
            send.write_all(&frame(0, WELCOME, &welcome)).await?;
        }
        REQUEST => {
            record(&|recording| recording.requests.push(body.clone()));
            // Of a migration's messages the kind stands behind version, number, id and the agent's name.
            let message = (body.get(1) == Some(&4)).then(|| {
                let name = usize::from(*body.get(18).unwrap_or(&0));
                body.get(19 + name).copied().unwrap_or(u8::MAX)
            });
            let said: Vec<u8> = match (body.get(1), message) {
                // Its introduction: name, address, release.
                (Some(0), _) => vec![10, 4, b'l', b'i', b'a', b'r', 0, 127, 0, 0, 1, 1, 0],
                // The name is free.
                (Some(5), _) => vec![6, 0],
                // Nobody is at home here.
                (Some(1), _) => vec![1, 2],
                (_, Some(1)) => [&[4, 2][..], &body[20 + usize::from(body[18])..]].concat(),
                (_, Some(2)) => vec![4, MIGRATION_REFUSED, 7, 2, b'n', b'o'],
                _ => vec![4, OK],
            };
            send.write_all(&frame(PROTOCOL, ANSWER, &[&[PROTOCOL][..], &said].concat())).await?;
        }
        BULK_OPEN => {
            let (_, bytes, header, _): ([u8; 16], u64, Bytes, bool) = postcard::from_bytes(&body)?;
            send.write_all(&frame(PROTOCOL, BULK_RESUME, &[0])).await?;
            let mut whole = Vec::new();
            while (whole.len() as u64) < bytes {
                let (kind, chunk) = read_frame(&mut recv).await?;
                ensure!(kind == BULK_CHUNK, "no chunk but kind {kind}");
                let (offset, chunk) = chunk.split_first_chunk().context("a chunk says where it belongs")?;
                ensure!(u64::from_le_bytes(*offset) == whole.len() as u64, "a chunk that belongs elsewhere");
                whole.extend_from_slice(chunk);
            }
            record(&|recording| recording.bulks.push((header.clone(), whole.clone().into())));
            send.write_all(&frame(PROTOCOL, ANSWER, &[PROTOCOL, 4, OK])).await?;
        }
        4 => send.write_all(&frame(PROTOCOL, 5, &[])).await?,
        other => bail!("nothing is said to kind {other}"),
    }
    Ok(())
}

/// Sends bytes over a stream of their own. Answers what the host said.
pub(crate) async fn say(connection: &Connection, bytes: &[u8]) -> Result<Said> {
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(bytes).await?;
    let (kind, body) = read_frame(&mut recv).await?;
    Said::of(kind, &body)
}

/// Sends the body of a request.
pub(crate) async fn ask(connection: &Connection, body: &[u8]) -> Result<Said> {
    say(connection, &frame(PROTOCOL, REQUEST, body)).await
}

/// Announces another transfer of so many bytes.
pub(crate) fn announced(bytes: u64, header: &[u8]) -> Vec<u8> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let id = u128::from(NEXT.fetch_add(1, Ordering::Relaxed)).to_be_bytes();
    let open = (id, bytes, header, false);
    frame(PROTOCOL, BULK_OPEN, &postcard::to_stdvec(&open).expect("plain values can be written"))
}

/// Bytes of a transfer in one chunk.
const CHUNK_BYTES: usize = 256 << 10;

/// Sends a transfer.
pub(crate) async fn bulk(connection: &Connection, header: &[u8], body: &[u8]) -> Result<Said> {
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(&announced(body.len() as u64, header)).await?;
    let (kind, resumed) = read_frame(&mut recv).await?;
    if kind != BULK_RESUME {
        return Said::of(kind, &resumed);
    }
    if resumed.first() == Some(&0) {
        for (chunk, offset) in body.chunks(CHUNK_BYTES).zip((0_u64..).step_by(CHUNK_BYTES)) {
            let chunk = [&offset.to_le_bytes()[..], chunk].concat();
            send.write_all(&frame(PROTOCOL, BULK_CHUNK, &chunk)).await?;
        }
    }
    let (kind, body) = read_frame(&mut recv).await?;
    Said::of(kind, &body)
}

/// Why the host closed the connection: its number.
pub(crate) async fn closed(connection: &Connection) -> Result<u64> {
    match tokio::time::timeout(SOON, connection.closed()).await.context("it stays open")? {
        ConnectionError::ApplicationClosed(close) => Ok(close.error_code.into_inner()),
        other => bail!("closed otherwise: {other}"),
    }
}

/// Whether nothing comes on a stream any more: the host has ended it.
pub(crate) async fn ended(recv: &mut RecvStream, limit: Duration) -> bool {
    let read = async { while let Ok(Some(_)) = recv.read(&mut [0; 1024]).await {} };
    tokio::time::timeout(limit, read).await.is_ok()
}
