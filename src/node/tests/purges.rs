//! What administrators empty and delete, and what of it a successor finds.

use steadfast_storage::disk::{Fault, Operation};

use super::*;
use crate::broker::QueueKind;
use crate::model::Pattern;

fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).expect("a pattern")
}

/// A queue with so many messages, all durable, that nobody reads. Its messages are called by their numbers from 0.
fn filled(count: usize) -> Scene {
    let mut scene = Scene::with(cramped_settings(), store_options());
    let to = scene.publisher("orders");
    for number in 0..count {
        scene.publish(to, &number.to_string());
        scene.commit();
    }
    scene.rest();
    scene
}

/// From now on writes of the log fail.
fn refuse_writes(world: &SimWorld, errno: i32) {
    world.inject(Fault {
        operation: Operation::Write,
        name_part: ".seg".to_owned(),
        skip: 0,
        count: u64::MAX,
        errno,
    });
}

impl Scene {
    /// One job of the store, and what follows from it. Whether there was one.
    fn step(&mut self) -> bool {
        let now = self.now();
        let job = self.node.poll_job(now);
        let is_done = job.is_some();
        if let Some(job) = job {
            self.node.complete(job.run()).expect("the disk writes");
            self.node.advance(now);
        }
        self.exchange();
        is_done
    }

    fn purge(&mut self) -> PurgeId {
        let now = self.now();
        let purge = self.node.purge_queues(now, &pattern(">"));
        self.exchange();
        purge.expect("a queue")
    }

    fn is_purged(&mut self, purge: PurgeId) -> bool {
        let now = self.now();
        matches!(self.node.purge_state(now, purge), PurgeState::Done(_))
    }

    fn delete(&mut self, name: &str) -> Ticket {
        let now = self.now();
        let (dropped, ticket) = self.node.delete_queues(now, &pattern(name));
        self.exchange();
        assert_eq!(dropped.queues, 1);
        ticket.expect("the log takes it")
    }

    /// The messages that a new consumer gets, in order.
    fn all_of(&mut self, queue: &str) -> Vec<String> {
        let from = self.consumer(queue, 1_000);
        self.rest();
        let log = self.take_log(from.0).into_iter();
        let texts = log.filter_map(|line| line.strip_prefix("got ").map(str::to_owned));
        texts.collect()
    }
}

#[test]
fn a_purge_that_was_answered_stays_and_one_that_was_not_leaves_the_newest() {
    const COUNT: usize = 60;
    let mut crashes = 0;
    for steps in 0.. {
        let mut scene = filled(COUNT);
        let purge = scene.purge();
        assert!(!scene.is_purged(purge), "nothing is durable yet");
        let took = (0..steps).take_while(|_| scene.step()).count();
        let is_purged = scene.is_purged(purge);
        let mut scene = scene.take_over();
        let left = scene.all_of("orders");
        let newest: Vec<String> = (COUNT - left.len()..COUNT)
            .map(|it| it.to_string())
            .collect();
        assert_eq!(left, newest, "after {steps} steps");
        assert!(!is_purged || left.is_empty(), "after {steps} steps");
        crashes += usize::from(!is_purged);
        if took < steps {
            assert!(is_purged, "it comes to an end");
            break;
        }
    }
    assert!(crashes > 3, "it goes part by part: {crashes}");
}

#[test]
fn what_comes_after_a_purge_and_what_a_receiver_has_stay() {
    let mut scene = filled(30);
    let from = scene.consumer("orders", 2);
    scene.commit();
    scene.check(from.0, "got 0, got 1");
    let purge = scene.purge();
    let to = scene.publisher("orders");
    scene.publish(to, "new");
    scene.rest();
    let now = scene.now();
    let expected = Dropped {
        queues: 1,
        messages: 28,
        kept: 0,
    };
    assert_eq!(
        scene.node.purge_state(now, purge),
        PurgeState::Done(expected)
    );
    let mut scene = scene.take_over();
    let holder = scene.consumer_as("client 1", "orders", 10);
    scene.rest();
    scene.check(holder.0, "got 0 x1, got 1 x1, got new x1");
}

#[test]
fn a_purge_ends_when_its_queue_is_deleted_meanwhile() {
    let mut scene = filled(30);
    let purge = scene.purge();
    let ticket = scene.delete("orders");
    scene.rest();
    assert!(scene.is_purged(purge));
    let now = scene.now();
    assert!(scene.node.is_safe(now, ticket));
    assert_eq!(scene.node.status().store.messages, 0);
}

#[test]
fn a_queue_is_deleted_as_a_whole_or_not_at_all() {
    let mut answered = 0;
    for steps in 0..40 {
        let mut scene = filled(30);
        let ticket = scene.delete("orders");
        for _ in 0..steps {
            scene.step();
        }
        let now = scene.now();
        let is_answered = scene.node.is_safe(now, ticket);
        answered += usize::from(is_answered);
        let mut scene = scene.take_over();
        let is_there = matches!(scene.node.broker.route("orders"), broker::Route::Queue(_));
        assert_eq!(is_there, !is_answered, "after {steps} steps");
        let count = if is_there { 30 } else { 0 };
        assert_eq!(scene.all_of("orders").len(), count, "after {steps} steps");
        scene.rest();
        let status = scene.node.status();
        assert_eq!((status.queues, status.store.messages), (1, count as u64));
    }
    assert!((1..40).contains(&answered), "{answered}");
}

#[test]
fn a_new_queue_has_the_name_of_one_that_is_being_deleted_and_nothing_of_it() {
    for steps in 0..40 {
        let mut scene = filled(30);
        scene.delete("orders");
        let to = scene.publisher("orders");
        scene.publish(to, "new");
        for _ in 0..steps {
            scene.step();
        }
        let is_confirmed = !scene.take_log(to.0).is_empty();
        let mut scene = scene.take_over();
        let left = scene.all_of("orders");
        match left.len() {
            // A successor marks what it cannot prove to be undelivered.
            1 => assert!(left[0].starts_with("new"), "{left:?}"),
            count => assert!(!is_confirmed && [0, 30].contains(&count), "{left:?}"),
        }
        scene.rest();
        assert_eq!(scene.node.status().queues, 1);
    }
}

#[test]
fn a_deleted_queue_takes_along_what_consumers_have_and_what_is_kept_for_clients() {
    let mut scene = filled(6);
    let held = scene.consumer_as("held", "orders", 2);
    scene.rest();
    scene.check(held.0, "got 0, got 1");
    let mut scene = scene.take_over();
    let other = scene.consumer_as("other", "orders", 2);
    scene.rest();
    scene.check(other.0, "got 2 x1, got 3 x1");
    assert_eq!(scene.node.held_messages(), 2);
    let ticket = scene.delete("orders");
    scene.check(other.0, "detached amqp:resource-deleted");
    let now = scene.now();
    assert!(!scene.node.is_safe(now, ticket));
    while !scene.node.is_safe(now, ticket) {
        assert!(scene.step());
    }
    // The server dies at once; who returns finds nothing.
    let mut scene = scene.take_over();
    let held = scene.consumer_as("held", "orders", 10);
    scene.rest();
    scene.check(held.0, "");
    assert_eq!(scene.node.held_messages(), 0);
    assert_eq!(scene.node.status().store.messages, 0);
}

#[test]
fn nothing_is_said_to_be_gone_while_the_disk_is_full() {
    let mut scene = filled(30);
    let name = "other";
    let now = scene.now();
    let made = scene.node.add_queue(name).expect("a queue");
    assert!(!scene.node.is_safe(now, made));
    scene.rest();
    assert!(scene.node.is_safe(now, made));
    let again = scene.node.add_queue(name).expect("it is there");
    assert!(scene.node.is_safe(now, again), "it is durable already");

    refuse_writes(&scene.world, nix::libc::ENOSPC);
    let refused = scene.node.refused_writes();
    let purge = scene.purge();
    let ticket = scene.delete(name);
    scene.rest();
    assert!(scene.node.refused_writes() > refused);
    let now = scene.now();
    assert!(!scene.is_purged(purge) && !scene.node.is_safe(now, ticket));
    // Whoever reads sees nothing of what goes, and a server that takes over finds all of it.
    assert_eq!(scene.all_of("orders"), [""; 0]);
    let world = scene.world.fork();
    world.heal();
    world.kill_all();
    let settings = scene.node.settings.clone();
    let mut successor = Scene::open(world, settings, store_options());
    assert_eq!(successor.all_of("orders").len(), 30);
    assert_eq!(successor.node.status().queues, 2);
    // With space it goes on by itself.
    scene.world.heal();
    scene.rest();
    let now = scene.now();
    assert!(scene.is_purged(purge) && scene.node.is_safe(now, ticket));
    let mut scene = scene.take_over();
    assert_eq!(scene.all_of("orders"), [""; 0]);
    assert_eq!(scene.node.status().queues, 1);
}

#[test]
fn a_disk_that_fails_ends_a_purge_and_leaves_the_rest_to_a_successor() {
    let mut scene = filled(30);
    refuse_writes(&scene.world, nix::libc::EIO);
    let purge = scene.purge();
    scene.commit();
    let now = scene.now();
    assert_eq!(scene.node.purge_state(now, purge), PurgeState::Over);
    scene.world.heal();
    let mut scene = scene.take_over();
    assert_eq!(scene.all_of("orders").len(), 30);
}

#[test]
fn a_log_that_takes_nothing_more_leaves_all_to_a_successor() {
    let mut scene = filled(30);
    scene.node.begin_seal();
    let now = scene.now();
    let (dropped, ticket) = scene.node.delete_queues(now, &pattern("orders"));
    assert_eq!((dropped.queues, ticket), (1, None));
    let purge = scene.purge();
    let now = scene.now();
    assert_eq!(scene.node.purge_state(now, purge), PurgeState::Over);
    let mut scene = scene.take_over();
    assert_eq!(scene.all_of("orders").len(), 30);
}

#[test]
fn of_two_queues_of_one_name_the_newer_one_has_it_whatever_the_order_of_their_rows() {
    let mut scene = filled(3);
    // As an older version left it. The key of the newer one stands before that of the older one.
    for number in [255_u32, 256] {
        let kind = QueueKind::Temporary { owner: None };
        let value = records::QueueRow::of(Arc::from("orders.reply"), kind).encode();
        let key = records::queue_key(number);
        let put = scene
            .node
            .store
            .put_row(records::KIND_QUEUE, &key, &value.expect("a row"));
        put.expect("the log takes it");
    }
    scene.rest();
    let mut scene = scene.take_over();
    let newer = broker::Route::Queue(broker::QueueId(256));
    assert_eq!(scene.node.broker.route("orders.reply"), newer);
    // The older one is nobody's.
    scene.pass(20_000);
    scene.rest();
    scene.rest();
    assert!(scene.node.broker.queue(broker::QueueId(255)).is_none());
}
