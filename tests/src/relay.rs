//! A door into the lab: a port on this machine's loopback that leads to one inside a namespace.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result};

use crate::netns::Netns;

/// A relay; it takes no more connections once dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Relay {
    /// Listens on a loopback port (0: any free one) and leads to a loopback port inside the namespace.
    pub fn start(port: u16, inside: &Netns, target: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .with_context(|| format!("listening on 127.0.0.1:{port} failed; is the port taken?"))?;
        let address = listener.local_addr().context("asking for the relay's own address failed")?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, inside) = (Arc::clone(&stop), inside.clone());
        thread::Builder::new()
            .name("relay".to_owned())
            .spawn(move || {
                for client in listener.incoming() {
                    if stopped.load(Ordering::Relaxed) {
                        return;
                    }
                    // A connection that fails is its client's loss alone.
                    if let Ok(client) = client {
                        drop(inside.spawn("relay-connection", move || carry(&client, target)));
                    }
                }
            })
            .context("starting the relay's thread failed")?;
        Ok(Self { address, stop })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the listener, which then sees that it should end.
        drop(TcpStream::connect(self.address));
    }
}

/// Carries bytes both ways until both sides have ended. Runs inside the namespace; the client's socket stays outside.
fn carry(client: &TcpStream, target: u16) -> Result<()> {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).context("nothing listens inside")?;
    thread::scope(|scope| {
        scope.spawn(|| copy(client, &server));
        copy(&server, client);
    });
    Ok(())
}

fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    drop(io::copy(&mut from, &mut to));
    drop(to.shutdown(Shutdown::Write));
}
