import jakarta.jms.CompletionListener;
import jakarta.jms.DeliveryMode;
import jakarta.jms.Destination;
import jakarta.jms.JMSException;
import jakarta.jms.Message;
import jakarta.jms.MessageConsumer;
import jakarta.jms.MessageProducer;
import jakarta.jms.Session;
import jakarta.jms.TextMessage;
import jakarta.jms.Topic;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.Field;
import java.net.URI;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Collections;
import java.util.IdentityHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import org.apache.qpid.jms.JmsConnection;
import org.apache.qpid.jms.JmsConnectionExtensions;
import org.apache.qpid.jms.JmsConnectionFactory;
import org.apache.qpid.jms.JmsConnectionListener;
import org.apache.qpid.jms.JmsConnectionRemotelyClosedException;
import org.apache.qpid.jms.message.JmsInboundMessageDispatch;
import org.apache.qpid.jms.message.JmsMessage;

/**
 * Senders, receivers and a drain on a pair of brokers, with Apache Qpid JMS: the twin of proton_client.py, with the
 * same options, events and commands. `tests/it/history.rs` says what the events mean.
 */
public final class Client {
    private static final int TICK_MS = 5;
    private static final long HOLD_NS = 20_000_000;
    /** The library's own mode: each message is settled by itself. */
    private static final int INDIVIDUAL_ACKNOWLEDGE = 101;
    private static final StringBuilder LINES = new StringBuilder();

    private static Options options;
    private static volatile boolean finishing;

    public static void main(String[] arguments) throws Exception {
        options = new Options(arguments);
        String[] queues = options.list("queues");
        List<Thread> threads = new ArrayList<>();
        for (int index = 0; index < options.number("count"); index++) {
            String name = options.text("name") + index;
            String queue = queues[index % queues.length];
            Member member = options.mode.equals("send") ? new Sender(name, queue) : new Receiver(name, queue);
            threads.add(new Thread(member::run, name));
        }
        Thread input = new Thread(Client::watchInput);
        input.setDaemon(true);
        input.start();
        Thread output = new Thread(Client::write);
        output.setDaemon(true);
        output.start();
        threads.forEach(Thread::start);
        for (Thread thread : threads) {
            thread.join();
        }
        flush(System.out);
    }

    private static void watchInput() {
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        input.lines().takeWhile(line -> !line.strip().equals("finish")).forEach(line -> { });
        finishing = true;
    }

    private static void write() {
        for (;;) {
            rest(TICK_MS);
            flush(System.out);
        }
    }

    private static void flush(PrintStream out) {
        String text;
        synchronized (LINES) {
            text = LINES.toString();
            LINES.setLength(0);
        }
        synchronized (out) {
            out.print(text);
            out.flush();
        }
    }

    private static void rest(long milliseconds) {
        try {
            Thread.sleep(milliseconds);
        } catch (InterruptedException error) {
            throw new IllegalStateException(error);
        }
    }

    /** Pairs of names and values; numbers are written as such. */
    private static void emit(String event, String client, Object... fields) {
        synchronized (LINES) {
            // CLOCK_MONOTONIC, on Linux.
            LINES.append("{\"time_ns\":").append(System.nanoTime()).append(",\"event\":").append(quoted(event));
            LINES.append(",\"client\":").append(quoted(client));
            for (int index = 0; index < fields.length; index += 2) {
                Object value = fields[index + 1];
                LINES.append(',').append(quoted((String) fields[index])).append(':');
                LINES.append(value instanceof Number ? value : quoted(String.valueOf(value)));
            }
            LINES.append("}\n");
        }
    }

    static String quoted(String text) {
        StringBuilder out = new StringBuilder("\"");
        for (char letter : text.toCharArray()) {
            if (letter == '"' || letter == '\\') {
                out.append('\\');
            }
            out.append(letter < ' ' ? ' ' : letter);
        }
        return out.append('"').toString();
    }

    /** Text that only this message can have: a mix-up of bytes shows. */
    private static String body(String name, int size) {
        return (name + " ").repeat(size / (name.length() + 1) + 1).substring(0, size);
    }

    /** One connection, reconnecting through the list of servers. */
    private abstract static class Member implements JmsConnectionListener {
        final String name;
        final String address;
        JmsConnection connection;
        /** Connections so far, those that a standby opened and closed at once included. */
        private int number;
        /** The library is not looking for a server. */
        volatile boolean open;

        Member(String name, String address) {
            this.name = name;
            this.address = address;
        }

        final void run() {
            try {
                JmsConnectionFactory factory = options.factory("&jms.receiveLocalOnly=" + receivesLocally());
                if (options.number("durable") > 0) {
                    factory.setClientID(name);
                }
                // The only moment that the library reports before anything happens on a new connection.
                factory.setExtension(JmsConnectionExtensions.AMQP_OPEN_PROPERTIES.toString(), (it, server) -> {
                    opening(server);
                    return null;
                });
                connection = (JmsConnection) factory.createConnection();
                connection.addConnectionListener(this);
                connection.start();
                begin(connection.createSession(INDIVIDUAL_ACKNOWLEDGE));
                open = true;
                while (!step()) {
                    continue;
                }
                emit("done", name);
                connection.close();
            } catch (Exception error) {
                emit("error", name, "text", String.valueOf(error));
            }
        }

        private synchronized void opening(URI server) {
            if (number > 0) {
                emit("disconnect", name, "connection", number);
            }
            number += 1;
            emit("connect", name, "connection", number, "server", server);
        }

        @Override
        public void onConnectionEstablished(URI server) {
            open = true;
        }

        @Override
        public void onConnectionInterrupted(URI server) {
            open = false;
        }

        @Override
        public void onConnectionRestored(URI server) {
            open = true;
        }

        @Override
        public void onConnectionFailure(Throwable error) {
            emit("error", name, "text", "connection: " + error);
        }

        @Override
        public void onInboundMessage(JmsInboundMessageDispatch envelope) { }

        @Override
        public void onSessionClosed(Session session, Throwable cause) {
            emit("error", name, "text", "session: " + cause);
        }

        @Override
        public void onConsumerClosed(MessageConsumer consumer, Throwable cause) {
            emit("error", name, "text", "consumer: " + cause);
        }

        @Override
        public void onProducerClosed(MessageProducer producer, Throwable cause) {
            emit("error", name, "text", "producer: " + cause);
        }

        synchronized int number() {
            return number;
        }

        static Destination destination(Session session, String address) throws JMSException {
            return address.startsWith("topic://")
                ? session.createTopic(address.substring("topic://".length())) : session.createQueue(address);
        }

        boolean receivesLocally() {
            return true;
        }

        abstract void begin(Session session) throws Exception;

        /** Goes on for a moment; whether all is done. */
        abstract boolean step() throws Exception;
    }

    /** Keeps a window of unconfirmed durable messages; sends those left by a lost connection again. */
    private static final class Sender extends Member implements CompletionListener {
        private static final String LOST = "Send failed due to connection loss";

        private Session session;
        private MessageProducer producer;
        private int next;
        /** Attempts by sequence numbers. */
        private final TreeMap<Integer, Integer> unconfirmed = new TreeMap<>();
        private final TreeSet<Integer> again = new TreeSet<>();
        /** Connections of the present attempts: a confirm counts for the one that carried the message. */
        private final Map<Integer, Integer> carriers = new TreeMap<>();
        private long due;

        Sender(String name, String address) {
            super(name, address);
        }

        @Override
        void begin(Session session) throws JMSException {
            this.session = session;
            producer = session.createProducer(destination(session, address));
            producer.setDeliveryMode(DeliveryMode.PERSISTENT);
        }

        @Override
        boolean step() throws JMSException {
            while (pump()) {
                continue;
            }
            synchronized (this) {
                if (finishing && unconfirmed.isEmpty()) {
                    return true;
                }
            }
            rest(1);
            return false;
        }

        private boolean pump() throws JMSException {
            int seq;
            int attempt;
            synchronized (this) {
                long now = System.nanoTime();
                int rate = options.number("rate");
                if (!open) {
                    return false;
                }
                if (!again.isEmpty()) {
                    seq = again.pollFirst();
                    attempt = unconfirmed.get(seq) + 1;
                } else if (finishing || unconfirmed.size() >= options.number("window") || rate > 0 && due > now) {
                    return false;
                } else {
                    seq = next++;
                    attempt = 1;
                    if (rate > 0) {
                        due = Math.max(due, now - 50_000_000) + 1_000_000_000L / rate;
                    }
                }
                unconfirmed.put(seq, attempt);
                carriers.put(seq, number());
            }
            String identity = name + "-" + seq + "-" + attempt;
            int every = options.number("large-every");
            boolean large = every > 0 && seq % every == every - 1;
            TextMessage message = session.createTextMessage(body(identity, options.number(large ? "large-size" : "size")));
            message.setJMSCorrelationID(identity);
            emit("publish", name, "sender", name, "seq", seq, "attempt", attempt);
            producer.send(message, this);
            return true;
        }

        /** What an outcome is about, when that is the last attempt; null otherwise. */
        private int[] known(Message message) {
            try {
                String[] parts = message.getJMSCorrelationID().split("-");
                int[] found = {Integer.parseInt(parts[1]), Integer.parseInt(parts[2])};
                return Integer.valueOf(found[1]).equals(unconfirmed.get(found[0])) ? found : null;
            } catch (JMSException error) {
                throw new IllegalStateException(error);
            }
        }

        @Override
        public synchronized void onCompletion(Message message) {
            int[] found = known(message);
            if (found != null && !again.contains(found[0])) {
                unconfirmed.remove(found[0]);
                emit("confirm", name, "connection", carriers.remove(found[0]),
                    "sender", name, "seq", found[0], "attempt", found[1]);
            }
        }

        @Override
        public synchronized void onException(Message message, Exception error) {
            int[] found = known(message);
            if (found != null) {
                if (!LOST.equals(error.getMessage()) && !(error instanceof JmsConnectionRemotelyClosedException)) {
                    emit("refuse", name, "sender", name, "seq", found[0], "attempt", found[1], "text", error);
                }
                again.add(found[0]);
            }
        }
    }

    /** Accepts by hand, some messages late, so that a kill meets unsettled ones; or drains. */
    private static final class Receiver extends Member {
        private record Held(long time, int number, Message message, Object[] known) { }

        private final boolean drains = options.mode.equals("drain");
        private MessageConsumer consumer;
        private final ArrayDeque<Held> held = new ArrayDeque<>();
        /** What stands for the library's present connection; and for earlier ones. */
        private Object carrier;
        private int carrierNumber;
        private final Set<Object> former = Collections.newSetFromMap(new IdentityHashMap<>());

        Receiver(String name, String address) {
            super(name, address);
        }

        @Override
        boolean receivesLocally() {
            // Otherwise the library drains the link when nothing comes.
            return !drains;
        }

        @Override
        void begin(Session session) throws JMSException {
            Destination destination = destination(session, address);
            consumer = options.number("durable") > 0
                ? session.createDurableSubscriber((Topic) destination, name) : session.createConsumer(destination);
        }

        @Override
        boolean step() throws Exception {
            Message message = consumer.receive(drains ? 1000 : TICK_MS);
            if (message != null && isPresent(message)) {
                deliver(message);
            }
            if (drains) {
                settleAllBut(0);
                return message == null;
            }
            if (finishing && open && message == null) {
                settleAllBut(0);
                return true;
            }
            settleAllBut(options.number("hold"));
            long old = System.nanoTime() - HOLD_NS;
            if (!held.isEmpty() && held.peekFirst().time < old) {
                settleAllBut((int) held.stream().filter(it -> it.time >= old).count());
            }
            return false;
        }

        /** Whether a message came over the present connection. Others come again: the library forgets their settlement. */
        private boolean isPresent(Message message) throws Exception {
            Object facade = ((JmsMessage) message).getFacade();
            Field field = facade.getClass().getSuperclass().getDeclaredField("connection");
            field.setAccessible(true);
            Object its = field.get(facade);
            int number = number();
            if (former.contains(its)) {
                return false;
            }
            if (its != carrier) {
                if (carrier != null) {
                    former.add(carrier);
                }
                carrier = its;
                carrierNumber = number;
                held.clear();
            }
            return true;
        }

        private void deliver(Message message) throws JMSException {
            String identity = message.getJMSCorrelationID();
            if (identity == null) {
                identity = message.getJMSMessageID().replaceFirst("^ID:(AMQP_NO_PREFIX:)?", "");
            }
            String[] parts = identity.split("-");
            Object[] known = {
                "sender", parts[0], "seq", Integer.parseInt(parts[1]), "attempt", Integer.parseInt(parts[2])};
            List<Object> fields = new ArrayList<>(List.of(known));
            fields.addAll(List.of("connection", carrierNumber,
                "delivery_count", message.getIntProperty("JMSXDeliveryCount") - 1));
            emit("deliver", name, fields.toArray());
            String text = message instanceof TextMessage it ? it.getText() : "";
            if (text.isEmpty() || !text.equals(body(identity, text.length()))) {
                List<Object> corrupt = new ArrayList<>(List.of(known));
                corrupt.addAll(List.of("text", "not what was sent"));
                emit("corrupt", name, corrupt.toArray());
            }
            held.addLast(new Held(System.nanoTime(), carrierNumber, message, known));
        }

        private void settleAllBut(int keep) throws JMSException {
            while (held.size() > keep) {
                Held first = held.removeFirst();
                if (first.number == number()) {
                    emit("settle", name, first.known);
                    first.message.acknowledge();
                }
            }
        }
    }
}
