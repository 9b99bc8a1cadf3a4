//! A bridge that is made of the codec and a socket, and what tests need to wait for things.
#![allow(dead_code, reason = "each test program uses its own part of this")]

pub(crate) mod model;
pub(crate) mod operator;
pub(crate) mod program;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use controller::daemon::Options;
use controller::listen::Limits;
use openflow::error::{BadRequest, ErrorMsg};
use openflow::frame::next_frame;
use openflow::message::Message;
use openflow::multipart::Part;
use openflow::multipart::{MultipartReply, MultipartRequest};
use openflow::peer::Timing;
use openflow::port::Port;
use openflow::switch::{Capabilities, FeaturesReply, Hello, Role, RoleRequest};
use openflow::types::{DatapathId, Xid};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Nothing here takes that long unless it never comes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn features(dpid: u64) -> Message {
    let capabilities = Capabilities::default();
    let datapath = DatapathId(dpid);
    Message::FeaturesReply(FeaturesReply { datapath, n_buffers: 0, n_tables: 254, auxiliary_id: 0, capabilities })
}

/// A bridge's end of a channel.
pub(crate) struct Bridge {
    pub(crate) stream: TcpStream,
    pub(crate) buffer: BytesMut,
}

impl Bridge {
    /// Connects, and says nothing yet.
    pub(crate) async fn silent(address: SocketAddr) -> Self {
        let stream = timeout(PATIENCE, TcpStream::connect(address)).await.unwrap().unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: BytesMut::new() }
    }

    /// Connects and tells who it is. Whether the controller accepts that is another matter.
    pub(crate) async fn connect(address: SocketAddr, dpid: u64) -> Self {
        Self::connect_with(address, dpid, Vec::new()).await
    }

    /// The same with these ports.
    pub(crate) async fn connect_with(address: SocketAddr, dpid: u64, ports: Vec<Port>) -> Self {
        let mut bridge = Self::silent(address).await;
        bridge.send(1, &Message::Hello(Hello::v13())).await;
        loop {
            let (xid, message) = bridge.receive().await.expect("the handshake goes on");
            let answer = match message {
                Message::FeaturesRequest(_) => features(dpid),
                Message::MultipartRequest(Part { body: MultipartRequest::PortDesc(_), .. }) => {
                    Message::MultipartReply(Part::whole(MultipartReply::PortDesc(ports.clone())))
                }
                Message::MultipartRequest(_) => Message::Error(ErrorMsg::about(BadRequest::BadMultipart, &"".into())),
                Message::RoleRequest(RoleRequest { role, .. }) => {
                    let role = if role == Role::NoChange { Role::Equal } else { role };
                    Message::RoleReply(RoleRequest { role, generation: 0 })
                }
                _ => continue,
            };
            bridge.send(xid.0, &answer).await;
            if matches!(answer, Message::RoleReply(_)) {
                return bridge;
            }
        }
    }

    pub(crate) async fn send(&mut self, xid: u32, message: &Message) {
        let mut out = BytesMut::new();
        message.encode(Xid(xid), &mut out).unwrap();
        self.write(&out).await;
    }

    pub(crate) async fn write(&mut self, octets: &[u8]) {
        self.try_write(octets).await.unwrap();
    }

    /// An error: the connection is closed.
    pub(crate) async fn try_write(&mut self, octets: &[u8]) -> std::io::Result<()> {
        timeout(PATIENCE, self.stream.write_all(octets)).await.expect("it can be written")
    }

    /// The next message; `None`: the connection is closed.
    pub(crate) async fn receive(&mut self) -> Option<(Xid, Message)> {
        loop {
            if let Some(frame) = next_frame(&mut self.buffer).unwrap() {
                return Some(Message::decode(&frame).unwrap());
            }
            match timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await.expect("something comes") {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// The next message that isn't an echo request; those are answered.
    pub(crate) async fn answer(&mut self) -> Option<(Xid, Message)> {
        loop {
            match self.receive().await? {
                (xid, Message::EchoRequest(body)) => self.send(xid.0, &Message::EchoReply(body)).await,
                other => return Some(other),
            }
        }
    }

    /// How long an echo takes.
    pub(crate) async fn echo(&mut self) -> Duration {
        static XIDS: AtomicU32 = AtomicU32::new(1000);
        let (start, xid) = (Instant::now(), XIDS.fetch_add(1, Ordering::Relaxed));
        self.send(xid, &Message::EchoRequest("are you there?".into())).await;
        while self.answer().await.expect("the session lives") != (Xid(xid), Message::EchoReply("are you there?".into()))
        {
        }
        start.elapsed()
    }

    /// How long it takes until the connection is closed.
    pub(crate) async fn closed(&mut self) -> Duration {
        let start = Instant::now();
        while self.answer().await.is_some() {}
        start.elapsed()
    }
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < PATIENCE, "{what}: not so after {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Deadlines short enough for tests.
pub(crate) fn limits() -> Limits {
    let ms = Duration::from_millis;
    Limits {
        peer: Timing { handshake: ms(500), echo_after: ms(500), echo_answer: ms(1500) },
        message: ms(500),
        write: ms(700),
        challenge: ms(1500),
        claim: ms(3000),
        handshakes: 64,
        request: ms(500),
    }
}

/// A folder that is gone after the test.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("espalier-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        // As editors do: whoever reads sees the old text or the new one.
        let (new, path) = (self.0.join(".new"), self.0.join(name));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, &path).unwrap();
        path
    }

    pub(crate) fn options(&self) -> Options {
        let any = "127.0.0.1:0".parse().unwrap();
        Options { policy: Vec::new(), openflow: any, rest: any, state: self.0.join("state"), limits: limits() }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
