// Senders, receivers and a drain on a pair of brokers, with rhea: the twin of proton_client.py,
// with the same options, events and commands. `tests/it/history.rs` says what the events mean.
'use strict';

const rhea = require('rhea');

const TICK_MS = 5;
const HOLD_MS = 20;
const DRAIN_CREDIT = 1000;

const options = {
    count: 4, window: 100, rate: 0, size: 1024, 'large-every': 0, 'large-size': 100000, hold: 10,
    'max-frame-size': 0, // no limit
    durable: 0, // 1: receivers have durable subscriptions that are named after them
    trusted: '', identity: '', // PEM files, for amqps
    user: '', 'password-file': '', // PLAIN, the only mechanism with a password that rhea has
};
const mode = process.argv[2];
for (let i = 3; i < process.argv.length; i += 2) {
    const name = process.argv[i].replace(/^--/, '');
    const value = process.argv[i + 1];
    options[name] = typeof options[name] === 'number' ? Number(value) : value;
}
const servers = options.servers.split(',').map((url) => new URL(url.replace(/^amqps?:/, 'http:')));

let finishing = false;
let lines = [];

function emit(event, client, fields) {
    const time = process.hrtime.bigint(); // CLOCK_MONOTONIC
    const rest = fields ? ',' + JSON.stringify(fields).slice(1, -1) : '';
    lines.push(`{"time_ns":${time},"event":"${event}","client":"${client}"${rest}}`);
}

function flush() {
    if (lines.length) {
        process.stdout.write(lines.join('\n') + '\n');
        lines = [];
    }
}

/** What TLS needs. */
function secrets() {
    const read = (file) => (file ? require('fs').readFileSync(file) : undefined);
    return { ca: read(options.trusted), cert: read(options.identity), key: read(options.identity) };
}

function password() {
    return require('fs').readFileSync(options['password-file'], 'utf8').split('\n')[0];
}

/** Text that only this message can have: a mix-up of bytes shows. */
function body(name, size) {
    return (name + ' ').repeat(Math.floor(size / (name.length + 1)) + 1).slice(0, size);
}

/** One connection, reconnecting to the servers in turn. */
class Client {
    constructor(name, address) {
        this.name = name;
        this.address = address;
        this.number = 0;
        this.open = false;
        this.finished = false;
        let attempt = 0;
        // A container of its own for each: its events cannot be mistaken for another's. A durable
        // subscription belongs to one that comes back under the same id.
        this.container = rhea.create_container(options.durable ? { id: name } : {});
        this.connection = this.container.create_connection({
            connection_details: () => {
                const url = servers[attempt++ % servers.length];
                const place = { host: url.hostname, port: url.port };
                return options.trusted
                    ? { ...place, options: secrets(), connect: require('tls').connect }
                    : { ...place, connect: require('net').connect };
            },
            max_frame_size: options['max-frame-size'] || undefined,
            username: options.user || undefined,
            password: options.user ? password() : undefined,
            // Takeovers are shorter than the library's default delays of 100 ms and doubling.
            initial_reconnect_delay: 10,
            max_reconnect_delay: 100,
        });
        this.container.on('connection_open', (context) => {
            // A standby opens and closes at once.
            this.number += 1;
            this.open = true;
            emit('connect', name, {
                connection: this.number,
                server: context.connection.container_id || '',
            });
            this.connected();
        });
        this.container.on('disconnected', () => {
            // rhea 3.0.5 keeps the beginning of a frame whose rest died with the old connection, takes
            // the first bytes of the new one for that rest, and waits for ever.
            this.connection.frame_size = undefined;
            this.connection.previous_input = undefined;
            this.lost();
        });
        this.container.on('connection_error', () => this.lost());
        for (const what of ['session', 'sender', 'receiver']) {
            this.container.on(`${what}_error`, (context) => {
                emit('error', name, { text: `${what}: ${context[what].error}` });
            });
        }
        this.container.on('error', (error) => emit('error', name, { text: String(error) }));
    }

    lost() {
        if (this.open) {
            this.open = false;
            emit('disconnect', this.name, { connection: this.number });
            this.disconnected();
        }
    }

    finish() {
        if (!this.finished) {
            this.finished = true;
            emit('done', this.name);
            this.connection.close();
        }
    }

    connected() {}
    disconnected() {}
}

/** Keeps a window of unconfirmed durable messages; sends those left by a lost connection again. */
class Sender extends Client {
    constructor(name, address) {
        super(name, address);
        this.seq = 0;
        this.unconfirmed = new Map(); // seq -> attempt
        this.again = [];
        this.due = 0;
        this.container.on('sendable', () => this.pump());
        this.container.on('accepted', (context) => this.accepted(context.delivery));
        this.container.on('released', (context) => this.refused(context.delivery, 'released'));
        this.container.on('rejected', (context) => this.refused(context.delivery, 'rejected'));
    }

    start() {
        this.connection.connect();
        this.sender = this.connection.open_sender({ target: this.address });
    }

    disconnected() {
        this.again = [...this.unconfirmed.keys()].sort((a, b) => a - b);
    }

    pump() {
        // Credit counts what is handed over too: what has no credit yet would be sent late.
        let credit = this.sender.credit;
        while (this.open && !this.finished && credit > 0 && this.sender.sendable()) {
            let seq;
            let attempt;
            if (this.again.length) {
                seq = this.again.shift();
                if (!this.unconfirmed.has(seq)) {
                    continue; // confirmed by what was still in the lost socket
                }
                attempt = this.unconfirmed.get(seq) + 1;
            } else if (finishing || this.unconfirmed.size >= options.window) {
                break;
            } else if (options.rate && this.due > Date.now()) {
                break;
            } else {
                seq = this.seq++;
                attempt = 1;
                if (options.rate) {
                    this.due = Math.max(this.due, Date.now() - 50) + 1000 / options.rate;
                }
            }
            this.unconfirmed.set(seq, attempt);
            const every = options['large-every'];
            const large = every && seq % every === every - 1;
            const size = large ? options['large-size'] : options.size;
            const name = `${this.name}-${seq}-${attempt}`;
            emit('publish', this.name, { sender: this.name, seq, attempt });
            this.sender.send(
                { message_id: name, durable: true, body: body(name, size) },
                Buffer.from(`${seq}-${attempt}`),
            );
            credit -= 1;
        }
    }

    /** The message that an outcome is about; undefined when it was about an earlier attempt. */
    outcome(delivery) {
        const [seq, attempt] = delivery.tag.toString().split('-').map(Number);
        return this.unconfirmed.get(seq) === attempt ? { seq, attempt } : undefined;
    }

    accepted(delivery) {
        const found = this.outcome(delivery);
        if (found) {
            this.unconfirmed.delete(found.seq);
            emit('confirm', this.name, { connection: this.number, sender: this.name, ...found });
            this.pump();
        }
    }

    refused(delivery, how) {
        const found = this.outcome(delivery);
        if (found) {
            const text = `${how}: ${JSON.stringify(delivery.remote_state)}`;
            emit('refuse', this.name, { sender: this.name, ...found, text });
            this.again.push(found.seq);
        }
    }

    tick() {
        if (finishing && this.unconfirmed.size === 0) {
            this.finish();
        } else if (this.open) {
            this.pump();
        }
    }
}

/** Accepts by hand, some messages late, so that a kill meets unsettled ones. */
class Receiver extends Client {
    constructor(name, address) {
        super(name, address);
        this.held = []; // in the order of arrival
        this.container.on('message', (context) => this.message(context));
    }

    start() {
        this.connection.connect();
        this.open_receiver(options.window);
    }

    open_receiver(credit) {
        const durable = { address: this.address, durable: 2, expiry_policy: 'never' };
        this.receiver = this.connection.open_receiver({
            ...(options.durable ? { name: this.name, source: durable } : { source: this.address }),
            credit_window: credit, autoaccept: false,
        });
    }

    disconnected() {
        this.held = [];
    }

    message(context) {
        const id = context.message.correlation_id || context.message.message_id;
        const [sender, seq, attempt] = id.split('-');
        const known = { sender, seq: Number(seq), attempt: Number(attempt) };
        const count = context.message.delivery_count || 0;
        emit('deliver', this.name, {
            connection: this.number, delivery_count: count, ...known,
        });
        const text = context.message.body;
        if (typeof text !== 'string' || text !== body(id, text.length)) {
            emit('corrupt', this.name, { text: 'not what was sent', ...known });
        }
        this.held.push({ time: Date.now(), delivery: context.delivery, known });
        this.settle(options.hold);
    }

    settle(keep) {
        while (this.held.length > keep) {
            const { delivery, known } = this.held.shift();
            emit('settle', this.name, known);
            delivery.accept();
        }
    }

    tick() {
        if (finishing && this.open) {
            this.settle(0);
            this.finish();
            return;
        }
        const old = Date.now() - HOLD_MS;
        this.settle(this.held.filter((held) => held.time >= old).length);
    }
}

/** Takes what is in a queue until the broker says that nothing more is there. */
class Drain extends Receiver {
    constructor(name, address) {
        super(name, address);
        this.taken = 0;
        this.container.on('receiver_open', () => this.drain());
        this.container.on('receiver_drained', () => {
            if (this.taken) {
                this.taken = 0;
                this.drain();
            } else {
                this.finish();
            }
        });
    }

    start() {
        this.connection.connect();
        this.open_receiver(0);
    }

    drain() {
        this.receiver.add_credit(DRAIN_CREDIT);
        this.receiver.drain_credit();
    }

    message(context) {
        super.message(context);
        this.settle(0);
        this.taken += 1;
    }

    tick() {}
}

const queues = options.queues.split(',');
const kinds = { send: Sender, receive: Receiver, drain: Drain };
const clients = [];
for (let i = 0; i < options.count; i++) {
    clients.push(new kinds[mode](`${options.name}${i}`, queues[i % queues.length]));
}
clients.forEach((client) => client.start());

const timer = setInterval(() => {
    clients.forEach((client) => client.tick());
    flush();
    if (clients.every((client) => client.finished)) {
        clearInterval(timer);
        process.stdin.destroy();
    }
}, TICK_MS);

process.stdin.setEncoding('utf8');
process.stdin.on('data', (text) => { finishing ||= text.includes('finish'); });
process.stdin.on('end', () => { finishing = true; });
process.on('exit', flush);
