//! Time-outs of connections, ours and those of clients, in both directions.

use super::*;

/// Clients and the server say this of themselves.
fn patience(idle_timeout_ms: u32) -> Settings {
    Settings {
        idle_timeout_ms: Some(idle_timeout_ms),
        ..Settings::default()
    }
}

impl Scene {
    /// Time goes by in small steps. The server is called at ticks and when it wants to be; clients say nothing but
    /// what their own patience asks for, if they speak. Returns the longest time in which a client heard nothing.
    fn silence(&mut self, client: usize, ms: u64, do_clients_speak: bool) -> u64 {
        let (mut longest, mut heard_at, mut heard) = (0, 0, self.clients[client].heard.len());
        for at in (0..ms).step_by(5) {
            self.world.advance_ms(5);
            let now = self.now();
            if at % 250 == 0 {
                self.node.tick(now);
            }
            if self
                .node
                .next_keep_alive_ms(now)
                .is_some_and(|due| due <= now.boot_ms)
            {
                self.node.keep_alive(now);
            }
            if do_clients_speak {
                for it in &mut self.clients {
                    it.connection.handle_timeout(now.monotonic_ms);
                }
            }
            self.exchange();
            if self.clients[client].heard.len() > heard {
                (heard, heard_at) = (self.clients[client].heard.len(), at);
            }
            longest = longest.max(at - heard_at);
        }
        longest
    }
}

#[test]
fn a_client_hears_from_the_server_twice_in_the_time_it_waits_however_impatient_it_is() {
    for idle_timeout_ms in [100, 300, 700, 1_000, 2_000] {
        let mut scene = Scene::new();
        let client = scene.connect_as("c", patience(idle_timeout_ms));
        let longest = scene.silence(client, 20_000, true);
        assert!(
            longest <= u64::from(idle_timeout_ms) / 2 + 10,
            "{longest} of {idle_timeout_ms}"
        );
        scene.check(client, "");
    }
}

#[test]
fn a_client_that_says_nothing_is_given_up_and_one_that_says_only_that_it_lives_is_not() {
    for do_clients_speak in [false, true] {
        let settings = NodeSettings {
            idle_timeout_ms: 3_000,
            ..node_settings()
        };
        let mut scene = Scene::with(settings, store_options());
        let client = scene.connect_as("c", patience(60_000));
        scene.silence(client, 2_500, do_clients_speak);
        scene.check(client, "");
        scene.silence(client, 10_000, do_clients_speak);
        let expected = match do_clients_speak {
            true => "",
            false => "closed amqp:resource-limit-exceeded",
        };
        scene.check(client, expected);
    }
}

#[test]
fn who_is_gone_is_not_waited_for() {
    let mut scene = Scene::new();
    let client = scene.connect_as("c", patience(100));
    let now = scene.now();
    assert!(scene.node.next_keep_alive_ms(now).is_some());
    scene.lose(client);
    assert_eq!(scene.node.next_keep_alive_ms(now), None);
}
