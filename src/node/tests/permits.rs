//! Authorization: who comes in, and what each may do.

use super::*;
use crate::model::{
    Action, Actions, DestinationKind, Grant, Pattern, Principal, Secret, StoredPassword,
};
use crate::node::CertificateUser;
use crate::proto::{DistributionMode, Symbol, Value};

fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).expect("the name is right")
}

/// Users with passwords, permissions, and `orders.>` as secure queues.
fn directory(users: &[(&str, &str)], grants: &[(&str, Action, &str)]) -> Arc<Directory> {
    let mut directory = Directory {
        authorization: true,
        ..Directory::default()
    };
    for (user, password) in users {
        let password = StoredPassword::Plain(Secret::new((*password).to_owned()));
        directory.users.insert((*user).to_owned(), password);
    }
    directory.access.secure_queues.push(pattern("orders.>"));
    for (user, action, name) in grants {
        directory.access.grants.push(Grant {
            kind: DestinationKind::Queue,
            name: pattern(name),
            principal: Principal::User((*user).to_owned()),
            actions: Actions::from_iter([*action]),
        });
    }
    Arc::new(directory)
}

const ANN: (&str, &str) = ("ann", "secret");

fn scene(users: &[(&str, &str)], grants: &[(&str, Action, &str)]) -> Scene {
    let mut scene = Scene::new();
    scene.use_directory(directory(users, grants));
    scene
}

impl Scene {
    fn use_directory(&mut self, directory: Arc<Directory>) {
        let now = self.now();
        self.node.set_directory(now, directory);
        self.exchange();
        self.commit();
    }
}

const REFUSED: &str = "detached amqp:unauthorized-access";

#[test]
fn only_users_with_their_password_come_in() {
    for (users, expected) in [
        (vec![ANN], ""),
        (vec![("ann", "other")], "closed amqp:unauthorized-access"),
        (vec![("bob", "secret")], "closed amqp:unauthorized-access"),
    ] {
        let mut scene = scene(&users, &[]);
        let client = scene.connect();
        scene.check(client, expected);
    }
}

#[test]
fn a_client_without_sasl_and_an_anonymous_one_are_refused() {
    for sasl in [ClientSasl::None, ClientSasl::Anonymous] {
        let mut scene = scene(&[ANN], &[]);
        let client = scene.connect_with("stranger", Settings::default(), sasl);
        let log = scene.take_log(client);
        assert!(log[0].starts_with("closed amqp:"), "{log:?}");
    }
}

#[test]
fn each_action_needs_its_permission() {
    let own = |action| [("ann", action, "orders.>")];
    for (action, expected) in [
        (Action::Send, ["", REFUSED, REFUSED]),
        (Action::Receive, [REFUSED, "", REFUSED]),
        (Action::Browse, [REFUSED, REFUSED, ""]),
    ] {
        let mut scene = scene(&[ANN], &own(action));
        let client = scene.connect();
        scene.sender(client, Some("orders.a"));
        scene.check(client, expected[0]);
        scene.receiver(client, Source::at("orders.a"), 1);
        scene.check(client, expected[1]);
        let browser = Source {
            distribution_mode: Some(DistributionMode::Copy),
            ..Source::at("orders.a")
        };
        scene.receiver(client, browser, 1);
        scene.check(client, expected[2]);
    }
}

#[test]
fn a_refusal_tells_nothing_and_makes_nothing() {
    let users = [ANN, ("admin", "secret")];
    let mut scene = scene(&users, &[]);
    let admin = scene.connect_as_user("admin");
    let to = (admin, scene.sender(admin, Some("orders.there")));
    scene.publish(to, "a");
    scene.commit();
    scene.check(admin, "accepted");
    let client = scene.connect();
    let mut heard = Vec::new();
    for name in ["orders.there", "orders.gone_"] {
        scene.clients[client].heard.clear();
        scene.sender(client, Some(name));
        scene.receiver(client, Source::at(name), 1);
        let text = String::from_utf8_lossy(&scene.clients[client].heard).into_owned();
        assert!(
            text.contains(name),
            "the error names what was asked for: {text}"
        );
        heard.push(text.replace(name, "").len());
    }
    assert_eq!(heard[0], heard[1], "the answers are the same");
    scene.check(client, &[REFUSED; 4].join(", "));
    let names: Vec<String> = scene
        .node
        .queue_status()
        .into_iter()
        .map(|it| it.name)
        .collect();
    assert_eq!(names, ["orders.there"]);
}

#[test]
fn what_is_not_secure_and_what_is_temporary_needs_no_permission() {
    let mut scene = scene(&[ANN], &[]);
    let client = scene.connect();
    let to = scene.sender(client, Some("letters"));
    scene.receiver(client, Source::at("letters"), 1);
    scene.publish((client, to), "a");
    scene.commit();
    scene.check(client, "got a, accepted");
    let temporary = Target {
        dynamic: true,
        ..Target::default()
    };
    let link = scene.attach_sender(client, temporary, "temporary");
    let address = scene.clients[client].addresses[&link].clone();
    let to = scene.sender(client, Some(&address));
    scene.publish((client, to), "b");
    scene.commit();
    scene.check(client, "accepted");
}

#[test]
fn the_anonymous_relay_asks_for_each_address() {
    let mut scene = scene(&[ANN], &[("ann", Action::Send, "orders.mine")]);
    let client = scene.connect();
    let relay = (client, scene.sender(client, None));
    let send = |scene: &mut Scene, to: &str, expected: &str| {
        let message = SimpleMessage {
            to: Some(to.to_owned()),
            ..text_message("m", true)
        };
        scene.publish_message(relay, &message);
        scene.commit();
        scene.check(client, expected);
    };
    for _ in 0..2 {
        send(&mut scene, "orders.mine", "accepted");
        send(&mut scene, "letters", "accepted");
        send(
            &mut scene,
            "orders.other",
            "rejected amqp:unauthorized-access",
        );
    }
    scene.use_directory(directory(&[ANN], &[("ann", Action::Send, "orders.other")]));
    send(
        &mut scene,
        "orders.mine",
        "rejected amqp:unauthorized-access",
    );
    send(&mut scene, "orders.other", "accepted");
}

#[test]
fn links_that_lose_their_permission_are_closed_and_others_stay() {
    let grants = [
        ("ann", Action::Send, "orders.a"),
        ("ann", Action::Receive, "orders.a"),
    ];
    let mut scene = scene(&[ANN], &grants);
    let client = scene.connect();
    let to = (client, scene.sender(client, Some("orders.a")));
    scene.receiver(client, Source::at("orders.a"), 10);
    scene.publish(to, "a");
    scene.commit();
    scene.check(client, "got a, accepted");
    scene.use_directory(directory(&[ANN], &grants[..1]));
    scene.check(client, REFUSED);
    scene.publish(to, "b");
    scene.commit();
    scene.check(client, "accepted");
    assert_eq!(scene.messages("orders.a"), 2, "what it held went back");
    scene.use_directory(directory(&[ANN], &grants));
    scene.receiver(client, Source::at("orders.a"), 10);
    scene.commit();
    scene.check(client, "got a, got b");
}

#[test]
fn users_that_are_removed_and_clients_that_never_logged_in_have_to_go() {
    let mut scene = Scene::new();
    let before = scene.connect();
    scene.sender(before, Some("letters"));
    scene.check(before, "");
    scene.use_directory(directory(&[ANN], &[]));
    scene.check(before, "closed amqp:connection:forced");
    let after = scene.connect();
    scene.sender(after, Some("letters"));
    scene.check(after, "");
    scene.use_directory(directory(&[ANN, ("bob", "x")], &[]));
    scene.check(after, "");
    scene.use_directory(directory(&[("bob", "x")], &[]));
    scene.check(after, "closed amqp:unauthorized-access");
}

#[test]
fn an_address_that_no_file_can_name_is_refused_where_it_is_covered() {
    let mut scene = scene(&[ANN], &[("ann", Action::Send, "orders.>")]);
    let client = scene.connect();
    scene.sender(client, Some("orders.a b"));
    scene.check(client, REFUSED);
    scene.sender(client, Some("letters.a b"));
    scene.check(client, "");
    scene.sender(client, Some("orders.>"));
    scene.check(client, "detached amqp:invalid-field");
    let other = self::scene(&[ANN], &[("ann", Action::Send, "orders.a")]);
    let mut scene = other;
    let client = scene.connect();
    // A pattern is permitted only if all of it is.
    scene.sender(client, Some("orders.*"));
    scene.check(client, REFUSED);
}

fn topics(grants: &[(&str, Action, &str)]) -> Arc<Directory> {
    let mut topics = (*directory(&[ANN], &[])).clone();
    topics.access.secure_topics.push(pattern("px.>"));
    for (user, action, name) in grants {
        topics.access.grants.push(Grant {
            kind: DestinationKind::Topic,
            name: pattern(name),
            principal: Principal::User((*user).to_owned()),
            actions: Actions::from_iter([*action]),
        });
    }
    Arc::new(topics)
}

#[test]
fn topics_have_their_own_permissions() {
    let durable = || Source {
        durable: proto::Durability::UnsettledState,
        expiry_policy: proto::ExpiryPolicy::Never,
        ..Source::at("topic://px.a")
    };
    for (action, expected) in [
        (Action::Publish, ["", REFUSED, REFUSED]),
        (Action::Subscribe, [REFUSED, "", REFUSED]),
        (Action::Durable, [REFUSED, REFUSED, ""]),
        // There is no such subscription yet.
        (Action::UseDurable, [REFUSED, REFUSED, REFUSED]),
    ] {
        let mut scene = Scene::new();
        scene.use_directory(topics(&[("ann", action, "px.*")]));
        let client = scene.connect();
        scene.sender(client, Some("topic://px.a"));
        scene.check(client, expected[0]);
        scene.receiver(client, Source::at("topic://px.a"), 1);
        scene.commit();
        scene.check(client, expected[1]);
        scene.receiver(client, durable(), 1);
        scene.commit();
        scene.check(client, expected[2]);
        // More than what was granted: the whole tree.
        scene.receiver(client, Source::at("topic://px.>"), 1);
        scene.commit();
        scene.check(client, REFUSED);
    }
}

#[test]
fn a_subscription_ends_with_its_permission() {
    let mut scene = Scene::new();
    let grants = [
        ("ann", Action::Subscribe, "px.>"),
        ("ann", Action::Publish, "px.>"),
    ];
    scene.use_directory(topics(&grants));
    let client = scene.connect();
    let to = (client, scene.sender(client, Some("topic://px.a")));
    scene.receiver(client, Source::at("topic://px.*"), 10);
    scene.commit();
    scene.publish(to, "a");
    scene.commit();
    scene.check(client, "got a, accepted");
    scene.use_directory(topics(&grants[1..]));
    scene.check(client, REFUSED);
    scene.publish(to, "b");
    scene.commit();
    scene.check(client, "accepted");
}

/// A directory with what a change makes of it.
fn changed(directory: Arc<Directory>, change: impl FnOnce(&mut Directory)) -> Arc<Directory> {
    let mut directory = (*directory).clone();
    change(&mut directory);
    Arc::new(directory)
}

#[test]
fn who_may_only_use_a_durable_subscription_cannot_replace_it() {
    let durable = |no_local: bool| Source {
        durable: proto::Durability::UnsettledState,
        expiry_policy: proto::ExpiryPolicy::Never,
        filter: no_local
            .then(|| (Symbol::from("no-local"), Value::String(String::new())))
            .into_iter()
            .collect(),
        ..Source::at("topic://px.a")
    };
    let grants = |action| [("ann", Action::Publish, "px.>"), ("ann", action, "px.>")];
    let mut scene = Scene::new();
    scene.use_directory(topics(&grants(Action::Durable)));
    let first = scene.connect_as("c", Settings::default());
    scene.attach_receiver(first, "d", Some(durable(false)));
    scene.commit();
    let to = (first, scene.sender(first, Some("topic://px.a")));
    scene.publish(to, "a");
    scene.commit();
    scene.lose(first);
    scene.use_directory(topics(&grants(Action::UseDurable)));
    let user = scene.connect_as("c", Settings::default());
    scene.attach_receiver(user, "d", Some(durable(true)));
    scene.commit();
    scene.check(user, REFUSED);
    let link = scene.attach_receiver(user, "d", Some(durable(false)));
    scene.credit((user, link), 10);
    scene.commit();
    scene.check(user, "got a");
}

#[test]
fn a_full_destination_behind_a_bridge_is_not_named_to_who_may_not_send_to_it() {
    use super::topics::bridge;
    for (grants, is_named) in [
        (vec![], false),
        (vec![("ann", Action::Send, "orders.>")], true),
    ] {
        let mut scene = Scene::new();
        let bridged = changed(directory(&[ANN], &grants), |it| {
            it.bridges
                .push(bridge("queue:letters", &["queue:orders.x"]));
            let properties = crate::model::Properties {
                messages_max: 1,
                overflow_policy: crate::model::OverflowPolicy::RejectIncoming,
                ..crate::model::Properties::default()
            };
            it.queues.insert(pattern("orders.>"), properties);
            it.queues
                .insert(pattern("letters"), crate::model::Properties::default());
        });
        scene.use_directory(bridged);
        let client = scene.connect();
        let to = (client, scene.sender(client, Some("letters")));
        scene.publish(to, "a");
        scene.publish(to, "b");
        scene.commit();
        let log = scene.take_log(client).join(", ");
        assert!(
            log.contains("rejected amqp:resource-limit-exceeded"),
            "{log}"
        );
        let text = String::from_utf8_lossy(&scene.clients[client].heard).into_owned();
        assert_eq!(text.contains("orders.x"), is_named, "{text}");
        assert_eq!(text.contains("maxmsgs"), is_named, "{text}");
    }
}

#[test]
fn links_of_clients_with_certificates_need_permission_from_the_moment_there_is_authorization() {
    let mut scene = Scene::new();
    let caller = Caller {
        address: None,
        certificate: Some(CertificateUser {
            name: String::from("ann"),
            is_forced: true,
            request: None,
        }),
    };
    let client = scene.connect_from(caller, "c", Settings::default(), ClientSasl::Anonymous);
    for name in ["orders.a", "orders.b"] {
        scene.receiver(client, Source::at(name), 10);
    }
    scene.check(client, "");
    let grants = [("ann", Action::Receive, "orders.b")];
    scene.use_directory(directory(&[ANN, ("admin", "secret")], &grants));
    scene.check(client, REFUSED);
    let admin = scene.connect_as_user("admin");
    for name in ["orders.a", "orders.b"] {
        let to = (admin, scene.sender(admin, Some(name)));
        scene.publish(to, name);
    }
    scene.commit();
    scene.check(client, "got orders.b");
}
