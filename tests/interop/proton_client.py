"""Senders, receivers and a drain on a pair of brokers, with Apache Qpid Proton.

Every event goes to standard output as one JSON line, with the time of CLOCK_MONOTONIC, which all
processes of a host share. `tests/it/history.rs` says what the lines mean and checks them.

A line `finish` (or the end) of standard input asks for the end: senders then wait for their
outstanding confirms, receivers settle what they hold.
"""

import argparse
import collections
import json
import sys
import threading
import time

from proton import Message, SASL, SSLDomain
from proton.handlers import MessagingHandler
from proton.reactor import Container, DurableSubscription

TICK_SECONDS = 0.005


def emit(event, client, **fields):
    fields.update(time_ns=time.monotonic_ns(), event=event, client=client)
    sys.stdout.write(json.dumps(fields, separators=(",", ":")) + "\n")


def identity(sender, seq, attempt):
    return "%s-%d-%d" % (sender, seq, attempt)


def body(name, size):
    """Text that only this message can have: a mix-up of bytes shows."""
    return ((name + " ") * (size // (len(name) + 1) + 1))[:size]


class Client(MessagingHandler):
    """One connection, reconnecting through the list of servers."""

    def __init__(self, program, name, **options):
        super().__init__(**options)
        self.program = program
        self.name = name
        self.connection = None
        self.number = 0
        self.open = False
        self.finished = False

    def connect(self, container):
        # The library's own way of reconnecting: a list of URLs and its default delays.
        self.connection = container.connect(
            urls=self.program.urls,
            handler=self,
            max_frame_size=self.program.options.max_frame_size,
            **self.program.login(),
        )

    def on_connection_opened(self, event):
        self.number += 1
        self.open = True
        emit("connect", self.name, connection=self.number, server=str(event.connection.url))
        self.connected()

    def on_disconnected(self, event):
        if self.open:
            self.open = False
            emit("disconnect", self.name, connection=self.number,
                 text=str(event.transport and event.transport.condition))
            self.disconnected()

    def on_connection_error(self, event):
        self.program.fail(self.name, "connection", event.connection.remote_condition)

    def on_session_error(self, event):
        self.program.fail(self.name, "session", event.session.remote_condition)

    def on_link_error(self, event):
        self.program.fail(self.name, "link", event.link.remote_condition)

    def on_transport_error(self, event):
        # The library logs it and connects again, unless the login was refused.
        condition = event.transport.condition
        if condition and condition.name == "amqp:unauthorized-access":
            self.program.fail(self.name, "login", condition)

    def finish(self):
        if not self.finished:
            self.finished = True
            emit("done", self.name)
            self.connection.close()

    def connected(self):
        pass

    def disconnected(self):
        pass


class Sender(Client):
    """Keeps a window of unconfirmed durable messages; sends those left by a lost connection again."""

    def __init__(self, program, name, address):
        super().__init__(program, name)
        self.address = address
        self.seq = 0
        self.unconfirmed = {}  # seq -> attempt, in the order of sequence numbers
        self.again = collections.deque()
        self.due = 0.0
        self.sender = None

    def start(self, container):
        self.connect(container)
        self.sender = container.create_sender(self.connection, self.address)

    def disconnected(self):
        self.again = collections.deque(sorted(self.unconfirmed))

    def on_sendable(self, event):
        self.pump()

    def pump(self):
        options = self.program.options
        while self.open and not self.finished and self.sender.credit > 0:
            if self.again:
                seq = self.again.popleft()
                if seq not in self.unconfirmed:
                    continue  # confirmed by what was still in the lost socket
                attempt = self.unconfirmed[seq] + 1
            elif self.program.finishing or len(self.unconfirmed) >= options.window:
                break
            elif options.rate and self.due > time.monotonic():
                break
            else:
                seq, attempt = self.seq, 1
                self.seq += 1
                if options.rate:
                    self.due = max(self.due, time.monotonic() - 0.05) + 1.0 / options.rate
            self.unconfirmed[seq] = attempt
            name = identity(self.name, seq, attempt)
            large = options.large_every and seq % options.large_every == options.large_every - 1
            size = options.large_size if large else options.size
            emit("publish", self.name, sender=self.name, seq=seq, attempt=attempt)
            message = Message(id=name, durable=True, body=body(name, size))
            self.sender.send(message, tag="%d-%d" % (seq, attempt))

    def outcome(self, event):
        """The message that an outcome is about; None when it was about an earlier attempt."""
        seq, attempt = (int(part) for part in event.delivery.tag.split("-"))
        if self.unconfirmed.get(seq) == attempt:
            return seq, attempt
        return None

    def on_accepted(self, event):
        found = self.outcome(event)
        if found:
            seq, attempt = found
            del self.unconfirmed[seq]
            emit("confirm", self.name, connection=self.number,
                 sender=self.name, seq=seq, attempt=attempt)
            self.pump()

    def refused(self, event, how):
        found = self.outcome(event)
        if found:
            seq, attempt = found
            emit("refuse", self.name, sender=self.name, seq=seq, attempt=attempt,
                 text="%s: %s" % (how, event.delivery.remote.condition))
            self.again.append(seq)

    def on_rejected(self, event):
        self.refused(event, "rejected")

    def on_released(self, event):
        self.refused(event, "released")

    def tick(self):
        if self.program.finishing and not self.unconfirmed:
            self.finish()
        elif self.open:
            self.pump()


class Receiver(Client):
    """Accepts by hand, some messages late, so that a kill meets unsettled ones."""

    HOLD_SECONDS = 0.02

    def __init__(self, program, name, address, prefetch=None):
        window = program.options.window if prefetch is None else prefetch
        super().__init__(program, name, prefetch=window, auto_accept=False)
        self.address = address
        self.held = collections.deque()  # (time, delivery, message)

    def start(self, container):
        self.connect(container)
        if self.program.options.durable:
            container.create_receiver(
                self.connection, self.address, name=self.name, options=DurableSubscription())
        else:
            container.create_receiver(self.connection, self.address)

    def disconnected(self):
        self.held.clear()

    def on_message(self, event):
        # Jakarta Messaging lets nobody choose the ids of messages.
        name = event.message.correlation_id or event.message.id
        sender, seq, attempt = name.split("-")
        known = {"sender": sender, "seq": int(seq), "attempt": int(attempt)}
        emit("deliver", self.name, connection=self.number,
             delivery_count=event.message.delivery_count, **known)
        text = event.message.body
        if not isinstance(text, str) or text != body(name, len(text)):
            emit("corrupt", self.name, text="not what was sent", **known)
        self.held.append((time.monotonic(), event.delivery, known))
        self.settle_all_but(self.program.options.hold)

    def settle_all_but(self, keep):
        while len(self.held) > keep:
            _, delivery, known = self.held.popleft()
            emit("settle", self.name, **known)
            self.accept(delivery)

    def tick(self):
        if self.program.finishing and self.open:
            self.settle_all_but(0)
            self.finish()
            return
        old = time.monotonic() - self.HOLD_SECONDS
        if self.held and self.held[0][0] < old:
            young = sum(1 for held in self.held if held[0] >= old)
            self.settle_all_but(young)


class Drain(Receiver):
    """Takes what is in a queue until the broker says that nothing more is there."""

    CREDIT = 1000

    def __init__(self, program, name, address):
        super().__init__(program, name, address, prefetch=0)
        self.taken = 0

    def on_link_opened(self, event):
        event.receiver.drain(self.CREDIT)

    def on_message(self, event):
        super().on_message(event)
        self.settle_all_but(0)
        self.taken += 1

    def on_link_flow(self, event):
        if self.finished or event.receiver.draining():
            return
        if self.taken:
            self.taken = 0
            event.receiver.drain(self.CREDIT)
        else:
            self.finish()

    def tick(self):
        pass


class Program(MessagingHandler):
    """All clients of this process."""

    def __init__(self, options):
        super().__init__()
        self.options = options
        self.urls = options.servers.split(",")
        self.finishing = False
        self.clients = []

    def on_start(self, event):
        domain = event.container.ssl.client if self.options.trusted else None
        if domain:
            domain.set_trusted_ca_db(self.options.trusted)
            # Proton compares the names of hosts, not their addresses, and the tests use addresses.
            domain.set_peer_authentication(SSLDomain.VERIFY_PEER)
            if self.options.identity:
                domain.set_credentials(self.options.identity, self.options.identity, None)
        queues = self.options.queues.split(",")
        kind = {"send": Sender, "receive": Receiver, "drain": Drain}[self.options.mode]
        for index in range(self.options.count):
            name = "%s%d" % (self.options.name, index)
            self.clients.append(kind(self, name, queues[index % len(queues)]))
        for client in self.clients:
            client.start(event.container)
        event.container.schedule(TICK_SECONDS, self)

    def on_timer_task(self, event):
        for client in self.clients:
            client.tick()
        sys.stdout.flush()
        if not all(client.finished for client in self.clients):
            event.container.schedule(TICK_SECONDS, self)

    def login(self):
        """Who the clients are, and by which mechanism they say so."""
        options = self.options
        if not options.user:
            return {}
        password = open(options.password_file, encoding="utf-8").readline().rstrip("\n")
        return {
            "user": options.user,
            "password": password,
            "allowed_mechs": options.mechanism,
            # Without TLS PLAIN is for tests only.
            "allow_insecure_mechs": True,
        }

    def fail(self, client, what, condition):
        emit("error", client, text="%s: %s" % (what, condition))
        sys.stdout.flush()

    def watch_input(self):
        for line in sys.stdin:
            if line.strip() == "finish":
                break
        self.finishing = True


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mode", choices=["send", "receive", "drain"])
    parser.add_argument("--servers", required=True, help="amqp URLs, separated by commas")
    parser.add_argument("--queues", required=True, help="addresses, separated by commas")
    parser.add_argument("--name", required=True, help="prefix of the clients' names")
    parser.add_argument("--count", type=int, default=4, help="connections")
    parser.add_argument("--window", type=int, default=100, help="unsettled messages or credit")
    parser.add_argument("--rate", type=float, default=0, help="messages a second and sender")
    parser.add_argument("--size", type=int, default=1024, help="bytes of a message")
    parser.add_argument("--large-every", type=int, default=0, help="each n-th message is large")
    parser.add_argument("--large-size", type=int, default=100_000, help="bytes of a large message")
    parser.add_argument("--trusted", help="PEM file of those who issue server certificates")
    parser.add_argument("--identity", help="PEM file of our certificate and key")
    parser.add_argument("--user", help="log in as this user")
    parser.add_argument("--password-file", help="file whose first line is the password")
    parser.add_argument("--mechanism", default="PLAIN", help="mechanism of SASL")
    # With messages of several frames, Proton 0.40 does not survive the loss of its connection in the
    # middle of one: it takes the first transfer of the next connection for the rest of that message.
    parser.add_argument("--max-frame-size", type=int, help="bytes of a frame that comes; 32 KiB")
    parser.add_argument("--hold", type=int, default=10, help="messages that a receiver settles late")
    parser.add_argument("--durable", type=int, default=0,
                        help="1: receivers have durable subscriptions that are named after them")
    parser.add_argument("--has-scram", action="store_true", help="only say whether SCRAM is possible")
    if "--has-scram" in sys.argv:
        print("yes" if SASL.extended() else "no")
        return
    options = parser.parse_args()
    program = Program(options)
    threading.Thread(target=program.watch_input, daemon=True).start()
    container = Container(program)
    if options.durable:
        # A durable subscription belongs to a container that comes back under the same id.
        container.container_id = options.name
    container.run()
    sys.stdout.flush()


if __name__ == "__main__":
    main()
