//! What the codec costs: `cargo bench -p espalier-openflow`.

use std::hint::black_box;

use bytes::BytesMut;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use openflow::frame::next_frame;
use openflow::message::Message;
use openflow::types::Xid;

mod cases;

fn messages(criterion: &mut Criterion) {
    for case in cases::cases() {
        let mut group = criterion.benchmark_group(case.name);
        group.throughput(Throughput::Bytes(case.octets() as u64));
        group.bench_function("decode", |bencher| {
            bencher.iter(|| {
                for frame in &case.frames {
                    let _ = black_box(Message::decode(black_box(frame)));
                }
            });
        });
        group.bench_function("encode", |bencher| {
            let mut out = BytesMut::with_capacity(case.octets());
            bencher.iter(|| {
                out.clear();
                for message in &case.messages {
                    black_box(message).encode(Xid(7), &mut out).unwrap();
                }
                black_box(&out);
            });
        });
    }
}

/// What a session does with a read that brought many small messages.
fn framing(criterion: &mut Criterion) {
    let small = &cases::cases()[0].frames[0];
    let stream = small.repeat(65_536 / small.len());
    let mut group = criterion.benchmark_group(format!("framing, {} packet-ins", 65_536 / small.len()));
    group.throughput(Throughput::Bytes(stream.len() as u64));
    group.bench_function("split", |bencher| {
        let buffer = || BytesMut::from(&stream[..]);
        let split = |mut buffer: BytesMut| {
            while let Ok(Some(frame)) = next_frame(&mut buffer) {
                black_box(frame);
            }
        };
        bencher.iter_batched(buffer, split, BatchSize::SmallInput);
    });
}

criterion_group!(benches, messages, framing);
criterion_main!(benches);
