//! Random work, and what must hold whatever happens.

use super::*;

/// Random work with consumers that come, go, fail and release: at the end every message was settled
/// exactly once (the scene asserts "not twice"), and none was delivered to two consumers at a time.
#[test]
fn nothing_is_lost_or_doubled_under_random_work() {
    for seed in 0..300 {
        random_work(seed);
    }
}

fn random_work(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut scene = Scene::new(small_limits());
    let mut attached: Vec<u64> = Vec::new();
    let mut held: Vec<(u64, u64)> = Vec::new();
    let mut next_consumer = 1;
    for _ in 0..300 {
        scene.automatic = random.u8(0..3) > 0;
        match random.u8(0..13) {
            0..4 => scene.publish(random.u64(1..6)),
            4 if attached.len() < 4 => {
                scene.attach(next_consumer);
                attached.push(next_consumer);
                next_consumer += 1;
            }
            5 if !attached.is_empty() && random.bool() => {
                let number = attached.swap_remove(random.usize(..attached.len()));
                held.retain(|(owner, _)| *owner != number);
                let how = if random.bool() {
                    Gone::Lost
                } else {
                    Gone::InOrder
                };
                scene.gone(number, how);
            }
            6 if !attached.is_empty() => scene.block(attached[random.usize(..attached.len())]),
            7 if !attached.is_empty() => {
                let it = consumer(attached[random.usize(..attached.len())]);
                scene.handle(Event::ConsumerReady { consumer: it });
            }
            8 => scene.answer_read(),
            12 => scene.exclusive(random.bool()),
            _ if !held.is_empty() => {
                let (number, lsn) = held.swap_remove(random.usize(..held.len()));
                let outcome = match random.u8(0..6) {
                    0 => Outcome::Released,
                    1 => Outcome::Modified {
                        failed: true,
                        not_here: random.bool(),
                    },
                    _ => Outcome::Accepted,
                };
                scene.settle(number, lsn, outcome);
            }
            _ => {}
        }
        note_deliveries(&mut scene, &mut held);
    }
    scene.automatic = true;
    while !scene.reads.is_empty() {
        scene.answer_read();
    }
    for number in attached {
        held.retain(|(owner, _)| *owner != number);
        scene.gone(number, Gone::InOrder);
    }
    scene.attach_as(next_consumer, ConsumerMode::TakeSettled);
    scene.handle(Event::Reserved {
        queue: QUEUE,
        up_to: u64::MAX,
    });
    assert_eq!(
        scene.settled.len() as u64,
        scene.next_lsn - 1,
        "seed {seed}: messages are lost"
    );
    assert_eq!(scene.broker.window_bytes(), 0, "seed {seed}");
}

fn note_deliveries(scene: &mut Scene, held: &mut Vec<(u64, u64)>) {
    for line in std::mem::take(&mut scene.log) {
        if let Some(up_to) = line.strip_prefix("reserve ") {
            let up_to = up_to.parse().expect("a number");
            scene.handle(Event::Reserved {
                queue: QUEUE,
                up_to,
            });
        }
        if let Some((number, rest)) = line.split_once('<') {
            let lsn = rest.split(' ').next().expect("one").parse().expect("lsn");
            assert!(
                held.iter().all(|(_, it)| *it != lsn),
                "{lsn} is delivered twice at a time"
            );
            held.push((number.parse().expect("a number"), lsn));
        }
    }
    if !scene.log.is_empty() {
        note_deliveries(scene, held);
    }
}
