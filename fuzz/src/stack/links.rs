//! Links between servers: calls, heartbeats, and what a link's end means.

use std::collections::VecDeque;

use steadfast::role::{Exit, Input, LinkId, PeerNews, State};

use super::network::{Line, Link};
use super::server::Hello;
use super::sim::{Event, Happening, MS, Sim};

impl Sim {
    /// A server calls the other one.
    pub(super) fn call(&mut self, server: usize) {
        let Some(process) = &self.servers[server].process else {
            return;
        };
        let first = process.hello.clone();
        let called = 1 - server;
        let ends = [(server, self.servers[server].life), (called, 0)];
        self.next_id += 1;
        let id = self.next_id;
        let link = Link {
            ends,
            ids: [None; 2],
            is_calling: true,
            first,
            lines: [VecDeque::new(), VecDeque::new()],
            last_at: [0; 2],
        };
        self.links.insert(id, link);
        let latency = self.between(50, 3 * MS);
        // The request is repeated until the call is given up.
        let at = self.weather.peer_cut(self.now).unwrap_or(self.now) + latency;
        self.at(at, Event::Line { link: id, end: 1 });
        let patience = self.heartbeat_ms * MS;
        self.tell(server, patience, Happening::CallTimeout(id));
    }

    /// Something comes to an end of a link.
    pub(super) fn line_due(&mut self, id: u64, end: usize) {
        if let Some(until) = self.weather.peer_cut(self.now) {
            return self.at(until + MS, Event::Line { link: id, end });
        }
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        let (server, life) = link.ends[end];
        if end == 1 && life == 0 {
            let (caller, _) = link.ends[0];
            if self.servers[server].process.is_none() {
                if link.is_calling {
                    self.links.remove(&id);
                    self.tell(caller, 0, Happening::CallTimeout(id));
                }
                return;
            }
            link.ends[1].1 = self.servers[server].life;
            return self.tell(server, 0, Happening::Call(id));
        }
        if life == self.servers[server].life {
            self.tell(server, 0, Happening::Peer(id));
        }
    }

    /// Says something to the other end of a link.
    pub(super) fn say(&mut self, id: u64, from: usize, line: Line) {
        let latency = self.between(50, 3 * MS);
        let now = self.now;
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        let to = 1 - from;
        let at = (now + latency).max(link.last_at[to]);
        link.last_at[to] = at;
        link.lines[to].push_back((at, line));
        self.at(at, Event::Line { link: id, end: to });
    }

    /// The next line that has come to an end.
    pub(super) fn hear(&mut self, id: u64, end: usize) -> Option<Line> {
        let now = self.now;
        let lines = &mut self.links.get_mut(&id)?.lines[end];
        if lines.front().is_some_and(|(at, _)| *at <= now) {
            lines.pop_front().map(|(_, line)| line)
        } else {
            None
        }
    }

    /// One end of a link closes it.
    pub(super) fn hang_up(&mut self, id: u64, end: usize, why: &'static str) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        link.ids[end] = None;
        self.say(id, end, Line::Closed(why));
    }

    /// The network breaks all links; both ends hear of it.
    pub(super) fn reset_links(&mut self) {
        let links: Vec<u64> = self.links.keys().copied().collect();
        for id in links {
            self.say(id, 0, Line::Closed("reset"));
            self.say(id, 1, Line::Closed("reset"));
        }
    }

    /// Closes all links of a server that ended.
    pub(super) fn close_links(&mut self, server: usize, why: &'static str) {
        let links: Vec<(u64, usize)> = self
            .links
            .iter()
            .filter_map(|(&id, link)| {
                let end = link.ends.iter().position(|(it, _)| *it == server)?;
                Some((id, end))
            })
            .collect();
        for (id, end) in links {
            self.hang_up(id, end, why);
            if let Some(link) = self.links.get(&id) {
                let (other, life) = link.ends[1 - end];
                if life != self.servers[other].life {
                    self.links.remove(&id);
                }
            }
        }
    }

    /// Takes in what came over a link.
    pub(super) fn peer_due(&mut self, server: usize, id: u64) {
        let life = self.servers[server].life;
        while let Some(link) = self.links.get(&id) {
            let Some(end) = link.ends.iter().position(|it| *it == (server, life)) else {
                return;
            };
            let is_calling = link.is_calling;
            let up = link.ids[end];
            let Some(line) = self.hear(id, end) else {
                return;
            };
            match (line, up) {
                (Line::Hello(hello), None) if end == 0 && is_calling => {
                    self.link_up(server, id, 0, &hello);
                }
                (Line::Hello(hello), Some(link)) => {
                    let news = hello.news();
                    if self.weigh_store(server, &hello) {
                        self.give(server, Input::Heard { link, news });
                    }
                }
                // A last word of a link that was hung up is no news.
                (Line::Hello(_), None) => {}
                (Line::Closed(why), up) => {
                    if let Some(link) = self.links.get_mut(&id) {
                        link.ids[end] = None;
                        if link.ids == [None; 2] {
                            self.links.remove(&id);
                        }
                    }
                    match up {
                        Some(link) => {
                            let reason = why.to_owned();
                            self.give(server, Input::LinkLost { link, reason });
                        }
                        None if end == 0 && is_calling => self.call_failed(server, why),
                        None => {}
                    }
                    return;
                }
            }
        }
    }

    /// A link is up at one end.
    pub(super) fn link_up(&mut self, server: usize, id: u64, end: usize, hello: &Hello) {
        let Some(process) = self.servers[server].process.as_mut() else {
            return;
        };
        process.next_link += 1;
        let number = LinkId(process.next_link);
        if let Some(link) = self.links.get_mut(&id) {
            link.ids[end] = Some(number);
            link.is_calling = false;
        }
        if !self.weigh_store(server, hello) {
            return;
        }
        let peer = (end == 0).then_some(0);
        let news: PeerNews = hello.news();
        let link = number;
        self.give(server, Input::Connected { link, peer, news });
        let current = self.servers[server].process.as_ref();
        if let Some(current) = current.map(|it| it.hello.clone()) {
            self.say(id, end, Line::Hello(current));
        }
    }

    pub(super) fn call_failed(&mut self, server: usize, why: &str) {
        let reason = why.to_owned();
        self.give(server, Input::ConnectFailed { peer: 0, reason });
    }

    pub(super) fn drop_link(&mut self, server: usize, number: LinkId) {
        let life = self.servers[server].life;
        let found = self.links.iter().find_map(|(id, link)| {
            let end = link.ends.iter().position(|it| *it == (server, life))?;
            (link.ids[end] == Some(number)).then_some((*id, end))
        });
        if let Some((id, end)) = found {
            self.hang_up(id, end, "the peer hung up");
        }
    }

    pub(super) fn answer_call(&mut self, server: usize, id: u64) {
        let Some(process) = &self.servers[server].process else {
            return;
        };
        let hello = process.hello.clone();
        let Some(link) = self.links.get(&id) else {
            return;
        };
        let first = link.first.clone();
        self.say(id, 1, Line::Hello(hello));
        // The caller still waits for the answer.
        self.link_up(server, id, 1, &first);
        if let Some(link) = self.links.get_mut(&id) {
            link.is_calling = link.ids[0].is_none();
        }
    }

    pub(super) fn call_timeout(&mut self, server: usize, id: u64) {
        match self.links.get(&id) {
            Some(link) if link.is_calling => {
                if link.ids[1].is_some() {
                    self.hang_up(id, 0, "the caller gave up");
                    if let Some(link) = self.links.get_mut(&id) {
                        link.is_calling = false;
                    }
                } else {
                    self.links.remove(&id);
                }
                self.call_failed(server, "no answer in time");
            }
            Some(_) => {}
            None => {}
        }
    }

    /// Two servers of a pair that are active on two stores: the one with the shorter history ends. False
    /// when that is this one.
    pub(super) fn weigh_store(&mut self, server: usize, hello: &Hello) -> bool {
        let Some(theirs) = hello.store.filter(|_| hello.state.owns_store()) else {
            return true;
        };
        let Some(process) = self.servers[server].process.as_mut() else {
            return false;
        };
        let ends = match process.hello.store {
            Some(own) if process.role.state() == State::Active && own != theirs => {
                (process.role.epoch(), own) < (hello.epoch, theirs)
            }
            _ => false,
        };
        process.peer_store = Some(theirs);
        if ends {
            self.exit(server, Exit::NotOwner, "another store");
        }
        !ends
    }
}
