//! Bridges, good and bad, against the listener. What is meant for the hub is taken by the tests themselves.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use apps::pipeline::{ADMIT, LEARN};
use bytes::{Bytes, BytesMut};
use controller::core::{Event, SessionId};
use controller::hub::Input;
use controller::listen::{self, Limits, Shared};
use controller::metrics::{Excess, Refused};
use controller::outgoing::Outgoing;
use openflow::error::{BadRequest, ErrorCode, ErrorMsg, HelloFailed};
use openflow::matching::Match;
use openflow::message::Message;
use openflow::packet::{PacketIn, PacketInReason};
use openflow::peer::Timing;
use openflow::switch::Hello;
use openflow::types::{BufferId, Cookie, DatapathId, TableId, Xid};
use support::{Bridge, PATIENCE, features, limits, until};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

struct Lab {
    address: SocketAddr,
    shared: Arc<Shared>,
    inputs: mpsc::Receiver<Input>,
    /// A session whose way from the hub is gone ends.
    kept: Vec<Arc<Outgoing>>,
    _stop: watch::Sender<bool>,
}

impl Lab {
    async fn new(limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (hub, inputs) = mpsc::channel(4096);
        let (stop, stopped) = watch::channel(false);
        let shared = Arc::new(Shared::new(hub, limits, Arc::default()));
        tokio::spawn(listen::serve(listener, Arc::clone(&shared), stopped));
        Self { address, shared, inputs, kept: Vec::new(), _stop: stop }
    }

    async fn input(&mut self) -> Input {
        timeout(PATIENCE, self.inputs.recv()).await.expect("something for the hub").unwrap()
    }

    async fn connected(&mut self) -> (SessionId, u64, Arc<Outgoing>) {
        match self.input().await {
            Input::Connected { session, identity, outgoing, .. } => {
                let outgoing = Arc::new(outgoing);
                self.kept.push(Arc::clone(&outgoing));
                (session, identity.features.datapath.0, outgoing)
            }
            other => panic!("{other:?}"),
        }
    }

    async fn disconnected(&mut self) -> SessionId {
        match self.input().await {
            Input::Event(Event::Disconnected { session }, None) => session,
            other => panic!("{other:?}"),
        }
    }

    async fn message(&mut self) -> (Xid, Message) {
        match self.input().await {
            Input::Event(Event::Message { xid, message, .. }, _) => (xid, message),
            other => panic!("{other:?}"),
        }
    }
}

fn hello(version: u8, versions: Option<Vec<u32>>) -> BytesMut {
    let mut out = BytesMut::new();
    Message::Hello(Hello::with_versions(versions)).encode(Xid(1), &mut out).unwrap();
    out[0] = version;
    out
}

fn packet_in(ethernet_type: u16, table: TableId) -> Message {
    let mut frame = [0u8; 60];
    frame[12..14].copy_from_slice(&ethernet_type.to_be_bytes());
    let data = Bytes::copy_from_slice(&frame);
    let (reason, cookie, matching) = (PacketInReason::NoMatch, Cookie(0), Match::default());
    Message::PacketIn(PacketIn {
        buffer_id: BufferId::NONE,
        total_len: 60,
        reason,
        table,
        cookie,
        matching,
        data: data.into(),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hub_hears_of_a_bridge_then_of_its_messages_then_of_its_end() {
    let mut lab = Lab::new(limits()).await;
    let mut bridge = Bridge::connect(lab.address, 7).await;
    let (session, dpid, outgoing) = lab.connected().await;
    assert_eq!((dpid, lab.shared.registry.bridges()), (7, vec![DatapathId(7)]));

    bridge.send(8, &Message::BarrierReply(openflow::wire::Nothing)).await;
    bridge.send(9, &Message::Error(ErrorMsg::about(BadRequest::BadVersion, &"".into()))).await;
    assert_eq!(lab.message().await.0, Xid(9), "nobody asked for the barrier");
    let mut batch = BytesMut::new();
    for xid in 0..3 {
        Message::BarrierRequest(openflow::wire::Nothing).encode(Xid(xid), &mut batch).unwrap();
    }
    outgoing.send(batch.freeze()).unwrap();
    for xid in 0..3 {
        assert_eq!(bridge.answer().await.unwrap().0, Xid(xid));
    }

    drop(bridge);
    assert_eq!(lab.disconnected().await, session);
    until("the datapath id is free", || lab.shared.registry.bridges().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_without_version_1_3_is_told_so_and_closed() {
    let mut lab = Lab::new(limits()).await;
    let mut canary = Bridge::connect(lab.address, 1).await;
    lab.connected().await;
    for (version, versions) in [
        (1, None),
        (3, None),
        (1, Some(vec![2])),
        (6, Some(vec![1 << 6])),
        (4, Some(vec![1 << 5])),
        (255, Some(vec![])),
    ] {
        let mut old = Bridge::silent(lab.address).await;
        old.write(&hello(version, versions)).await;
        // What it sends besides must not wipe out our words.
        old.write(&[0xee; 3000]).await;
        let mut told = None;
        while let Some((_, message)) = old.receive().await {
            if let Message::Error(error) = message {
                told = Some(error);
            }
        }
        let told = told.expect("an error before the end");
        assert_eq!(told.code, ErrorCode::HelloFailed(HelloFailed::Incompatible));
        assert!(String::from_utf8_lossy(&told.data).contains("protocols=OpenFlow13"));
        assert!(canary.echo().await < Duration::from_secs(1));
    }
    for (version, versions) in [(4, None), (5, None), (255, None), (1, Some(vec![1 << 4 | 1 << 1]))] {
        let mut good = Bridge::silent(lab.address).await;
        good.write(&hello(version, versions)).await;
        while !matches!(good.receive().await.expect("it is taken").1, Message::FeaturesRequest(_)) {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_says_nothing_or_only_half_is_closed_at_its_deadline() {
    let lab = Lab::new(limits()).await;
    let mut beginnings = vec![Vec::new(), vec![4], vec![4, 0, 0xff, 0xff, 0, 0, 0, 0], hello(4, None).to_vec()];
    beginnings.push([&hello(4, None)[..], &[4, 6, 0, 32, 0]].concat());
    for octets in beginnings {
        let mut silent = Bridge::silent(lab.address).await;
        silent.write(&octets).await;
        let took = silent.closed().await;
        assert!((300..3000).contains(&took.as_millis()), "{octets:02x?}: {took:?}");
    }
    // A message that comes drop by drop has a deadline of its own, whatever else is answered.
    let mut lab = Lab::new(Limits { peer: Timing { echo_after: PATIENCE, ..limits().peer }, ..limits() }).await;
    let mut known = Bridge::connect(lab.address, 1).await;
    lab.connected().await;
    known.write(&[4, 10, 0xff, 0xff, 0]).await;
    assert!(known.closed().await < Duration::from_secs(3));
    lab.disconnected().await;
    assert_eq!(lab.shared.metrics.refused(Refused::MessageTimeout).get(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_answers_no_echo_is_closed() {
    let mut lab = Lab::new(limits()).await;
    let mut mute = Bridge::connect(lab.address, 1).await;
    lab.connected().await;
    let start = std::time::Instant::now();
    while mute.receive().await.is_some() {}
    let took = start.elapsed();
    assert!((1900..3000).contains(&took.as_millis()), "closed after {took:?}");
    lab.disconnected().await;
    assert_eq!(lab.shared.metrics.refused(Refused::EchoTimeout).get(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_about_to_connect_is_bounded_and_waits_its_turn() {
    let mut lab = Lab::new(Limits { handshakes: 2, ..limits() }).await;
    let _silent = [Bridge::silent(lab.address).await, Bridge::silent(lab.address).await];
    // It gets through once the silent ones are closed.
    let _bridge = Bridge::connect(lab.address, 1).await;
    assert_eq!(lab.connected().await.1, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_living_bridge_keeps_its_datapath_id() {
    let mut lab = Lab::new(limits()).await;
    let mut incumbent = Bridge::connect(lab.address, 5).await;
    lab.connected().await;
    let (done, mut end) = mpsc::channel::<()>(1);
    let alive = tokio::spawn(async move {
        tokio::select! {
            other = incumbent.answer() => panic!("{other:?}"),
            _ = end.recv() => incumbent,
        }
    });
    for _ in 0..10 {
        let mut newcomer = Bridge::connect(lab.address, 5).await;
        assert!(newcomer.closed().await < Duration::from_secs(1));
    }
    drop(done);
    let mut incumbent = alive.await.unwrap();
    incumbent.echo().await;
    let heard = lab.inputs.try_recv();
    assert!(heard.is_err(), "the hub hears of it: {heard:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_bridge_is_replaced_within_3_s_and_the_hub_hears_its_end_first() {
    // The usual deadlines are what is promised.
    let mut lab = Lab::new(Limits::default()).await;
    let _dead = Bridge::connect(lab.address, 5).await;
    let (old, ..) = lab.connected().await;
    let start = std::time::Instant::now();
    let mut newcomer = Bridge::connect(lab.address, 5).await;
    assert_eq!(lab.disconnected().await, old);
    assert_ne!(lab.connected().await.0, old);
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    newcomer.echo().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_connects_again_at_once_needs_no_patience() {
    let mut lab = Lab::new(limits()).await;
    for _ in 0..20 {
        let bridge = Bridge::connect(lab.address, 5).await;
        let (session, ..) = lab.connected().await;
        drop(bridge);
        let again = Bridge::connect(lab.address, 5).await;
        assert_eq!(lab.disconnected().await, session);
        let (session, ..) = lab.connected().await;
        drop(again);
        assert_eq!(lab.disconnected().await, session);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_bridge_may_not_send_is_refused_and_the_session_lives() {
    let mut lab = Lab::new(limits()).await;
    let mut bridge = Bridge::connect(lab.address, 1).await;
    lab.connected().await;
    for kind in [30, 99, 255, 14, 15, 13, 18, 24, 29] {
        bridge.send(77, &Message::Unknown { kind, data: Bytes::from_static(&[0xff; 5]).into() }).await;
        let (xid, answer) = bridge.answer().await.unwrap();
        let Message::Error(ErrorMsg { code: ErrorCode::BadRequest(BadRequest::BadType), data }) = answer else {
            panic!("type {kind}: {answer:?}")
        };
        assert_eq!((xid, data[1]), (Xid(77), kind));
    }
    // Another version after agreement, a second HELLO, an error about nothing, broken messages.
    bridge.write(&[1, 2, 0, 8, 0, 0, 0, 3]).await;
    let bad_version = ErrorCode::BadRequest(BadRequest::BadVersion);
    assert!(matches!(bridge.answer().await, Some((Xid(3), Message::Error(error))) if error.code == bad_version));
    bridge.write(&hello(4, None)).await;
    for _ in 0..1000 {
        bridge.send(4, &Message::Unknown { kind: 10, data: Bytes::from_static(&[0xff; 20]).into() }).await;
    }
    bridge.echo().await;
    assert_eq!(lab.shared.metrics.refused(Refused::Malformed).get(), 1000);
    bridge.send(5, &Message::Error(ErrorMsg::about(BadRequest::BadVersion, &"".into()))).await;
    assert_eq!(lab.message().await.0, Xid(5), "all else never got to the hub");
    // Whoever turns into another bridge has to connect as that one.
    bridge.send(6, &features(1)).await;
    bridge.echo().await;
    bridge.send(6, &features(2)).await;
    assert!(bridge.closed().await < Duration::from_secs(1));
    lab.disconnected().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_writes_before_it_reads_gets_everything() {
    let mut lab = Lab::new(Limits { write: PATIENCE, ..limits() }).await;
    let mut bridge = Bridge::connect(lab.address, 1).await;
    let (_, _, outgoing) = lab.connected().await;
    let mut batch = BytesMut::new();
    // More than the sockets of both ends hold.
    for xid in 0..250 {
        Message::EchoReply(vec![0; 65_000].into()).encode(Xid(xid), &mut batch).unwrap();
    }
    outgoing.send(batch.freeze()).unwrap();
    for xid in 1000..1100 {
        bridge.send(xid, &Message::EchoRequest(vec![0; 50_000].into())).await;
    }
    let mut xids = Vec::new();
    while xids.len() < 350 {
        if let (Xid(xid), Message::EchoReply(_)) = bridge.answer().await.expect("the session lives") {
            xids.push(xid);
        }
    }
    xids.sort_unstable();
    assert!(xids.into_iter().eq((0..250).chain(1000..1100)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_never_reads_is_closed() {
    let mut lab = Lab::new(Limits { peer: Timing { echo_after: PATIENCE, ..limits().peer }, ..limits() }).await;
    // One long batch, of which the sockets of both ends hold a part.
    let _lazy = Bridge::connect(lab.address, 1).await;
    let (session, _, outgoing) = lab.connected().await;
    outgoing.send(Bytes::from(vec![0; 32 << 20])).unwrap();
    assert_eq!(lab.disconnected().await, session);
    assert_eq!(lab.shared.metrics.refused(Refused::OutputTimeout).get(), 1);

    let _lazy = Bridge::connect(lab.address, 1).await;
    let (session, _, outgoing) = lab.connected().await;
    let batch = Bytes::from(vec![0; 1 << 20]);
    // The hub never waits for it: either its queue is full, or the session has given up.
    while outgoing.send(batch.clone()).is_ok() && lab.inputs.is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(lab.disconnected().await, session);

    // The hub's own order is carried out even while nothing can be written.
    let _lazy = Bridge::connect(lab.address, 1).await;
    let (session, _, outgoing) = lab.connected().await;
    while outgoing.send(batch.clone()).is_ok() {}
    outgoing.close("it is slow".into());
    assert_eq!(lab.disconnected().await, session);
}

#[tokio::test(flavor = "multi_thread")]
async fn packet_ins_have_budgets_and_nothing_else_is_dropped() {
    let mut lab = Lab::new(limits()).await;
    let mut bridge = Bridge::connect(lab.address, 1).await;
    lab.connected().await;
    let mut all = BytesMut::new();
    // Neither what somebody else makes a bridge show nor a container's frames of the probes' type count as probes.
    for (ethernet_type, table) in [(0x0800, ADMIT), (0x88b5, LEARN)] {
        (0..50).for_each(|_| packet_in(ethernet_type, table).encode(Xid(1), &mut all).unwrap());
    }
    for _ in 0..300 {
        packet_in(0x88b5, ADMIT).encode(Xid(2), &mut all).unwrap();
    }
    Message::Error(ErrorMsg::about(BadRequest::BadVersion, &"".into())).encode(Xid(3), &mut all).unwrap();
    bridge.write(&all).await;
    let dropped = |why| lab.shared.metrics.excess(why).get();
    until("what is beyond the budgets is dropped", || (dropped(Excess::Packets), dropped(Excess::Probes)) == (36, 44))
        .await;
    bridge.echo().await;
    for expected in [vec![Xid(1); 64], vec![Xid(2); 256], vec![Xid(3)]].concat() {
        assert_eq!(lab.message().await.0, expected);
    }
    // What the hub has handled gives room again.
    bridge.send(4, &packet_in(0x0800, LEARN)).await;
    assert_eq!(lab.message().await.0, Xid(4));
}
