import jakarta.jms.BytesMessage;
import jakarta.jms.Connection;
import jakarta.jms.DeliveryMode;
import jakarta.jms.Destination;
import jakarta.jms.InvalidClientIDException;
import jakarta.jms.InvalidDestinationException;
import jakarta.jms.JMSException;
import jakarta.jms.JMSSecurityException;
import jakarta.jms.MapMessage;
import jakarta.jms.Message;
import jakarta.jms.MessageConsumer;
import jakarta.jms.MessageProducer;
import jakarta.jms.ObjectMessage;
import jakarta.jms.Queue;
import jakarta.jms.QueueBrowser;
import jakarta.jms.Session;
import jakarta.jms.StreamMessage;
import jakarta.jms.TemporaryQueue;
import jakarta.jms.TemporaryTopic;
import jakarta.jms.TextMessage;
import jakarta.jms.Topic;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Enumeration;
import java.util.List;

/**
 * What Jakarta Messaging promises, against one server or a pair: each check is a line `ok NAME` or `failed NAME: why`.
 * The mode `takeover` says `ready`, and goes on after a line of standard input.
 */
public final class Features {
    /** A message that is there comes well before. */
    private static final long PATIENCE_MS = 20_000;
    private static final int INDIVIDUAL_ACKNOWLEDGE = 101;

    private interface Check {
        void run() throws Exception;
    }

    private final Options options;
    private boolean failed;

    private Features(Options options) {
        this.options = options;
    }

    public static void main(String[] arguments) throws Exception {
        Features features = new Features(new Options(arguments));
        switch (features.options.mode) {
            case "features" -> features.all();
            case "takeover" -> features.takeover();
            case "logins" -> features.logins();
            default -> throw new IllegalArgumentException(features.options.mode);
        }
        System.exit(features.failed ? 1 : 0);
    }

    private void check(String name, Check check) {
        try {
            check.run();
            System.out.println("ok " + name);
        } catch (Throwable error) {
            failed = true;
            StackTraceElement[] trace = error.getStackTrace();
            var place = Arrays.stream(trace).filter(it -> it.getClassName().startsWith("Features")).findFirst();
            System.out.println("failed " + name + ": " + error + place.map(it -> " at " + it).orElse(""));
        }
        System.out.flush();
    }

    private static void must(boolean condition, Object what) {
        if (!condition) {
            throw new AssertionError(what);
        }
    }

    private static void same(Object wanted, Object found) {
        must(wanted == null ? found == null : wanted.equals(found), "wanted " + wanted + ", found " + found);
    }

    /** That something fails in this way, with words of the server that a person can use. */
    private static void fails(Class<? extends JMSException> how, String words, Check check) throws Exception {
        try {
            check.run();
        } catch (JMSException error) {
            must(how.isInstance(error), error);
            must(String.valueOf(error.getMessage()).contains(words), error);
            return;
        }
        throw new AssertionError("it did not fail");
    }

    private Connection connect(String more) throws Exception {
        Connection connection = options.factory(more).createConnection();
        connection.start();
        return connection;
    }

    private static Session session(Connection connection) throws JMSException {
        return connection.createSession(Session.AUTO_ACKNOWLEDGE);
    }

    private static void send(Session session, Destination to, String... texts) throws JMSException {
        MessageProducer producer = session.createProducer(to);
        for (String text : texts) {
            producer.send(session.createTextMessage(text));
        }
        producer.close();
    }

    private static String text(Message message) throws JMSException {
        return message == null ? null : ((TextMessage) message).getText();
    }

    private static void receives(MessageConsumer consumer, String... texts) throws JMSException {
        for (String text : texts) {
            same(text, text(consumer.receive(PATIENCE_MS)));
        }
    }

    /** The same where the settlement of an earlier message may have been lost with its server. */
    private static void reaches(MessageConsumer consumer, String wanted) throws JMSException {
        Message message = consumer.receive(PATIENCE_MS);
        while (message != null && message.getJMSRedelivered() && !wanted.equals(text(message))) {
            message = consumer.receive(PATIENCE_MS);
        }
        same(wanted, text(message));
    }

    /** That nothing waits: the library asks the server. */
    private static void receivesNothing(MessageConsumer consumer) throws JMSException {
        same(null, text(consumer.receiveNoWait()));
    }

    private void all() throws Exception {
        check("bodies", this::bodies);
        check("headers", this::headers);
        check("client_acknowledge", this::clientAcknowledge);
        check("individual_acknowledge", this::individualAcknowledge);
        check("prefetch", this::prefetch);
        check("throwing_listener", this::throwingListener);
        check("time_to_live", this::timeToLive);
        check("browser", this::browser);
        check("topics", this::topics);
        check("no_local", this::noLocal);
        check("durable_subscriptions", this::durableSubscriptions);
        check("temporary_queues", () -> temporary(false));
        check("temporary_topics", () -> temporary(true));
        check("anonymous_producer", this::anonymousProducer);
        check("large_messages", this::largeMessages);
        check("selectors_are_refused", this::selectors);
        check("transactions_are_refused", this::transactions);
        check("shared_subscriptions_are_refused", this::sharedSubscriptions);
        check("delivery_delay_is_refused", this::deliveryDelay);
        check("client_id_in_use", this::clientIdInUse);
        check("idle_connections", this::idleConnections);
    }

    private void bodies() throws Exception {
        try (Connection connection = connect("")) {
            Session session = session(connection);
            Queue queue = session.createQueue("jms.bodies");
            MessageProducer producer = session.createProducer(queue);
            BytesMessage bytes = session.createBytesMessage();
            bytes.writeUTF("bytes");
            MapMessage map = session.createMapMessage();
            map.setLong("long", Long.MAX_VALUE);
            map.setString("text", "t\u00e4xt");
            StreamMessage stream = session.createStreamMessage();
            stream.writeDouble(1.5);
            ObjectMessage object = session.createObjectMessage(new ArrayList<>(List.of("a", "b")));
            for (Message message : List.of(session.createTextMessage("text"), bytes, map, stream, object, session.createMessage())) {
                producer.send(message);
            }
            MessageConsumer consumer = session.createConsumer(queue);
            receives(consumer, "text");
            same("bytes", ((BytesMessage) consumer.receive(PATIENCE_MS)).readUTF());
            MapMessage received = (MapMessage) consumer.receive(PATIENCE_MS);
            same(Long.MAX_VALUE, received.getLong("long"));
            same("t\u00e4xt", received.getString("text"));
            same(1.5, ((StreamMessage) consumer.receive(PATIENCE_MS)).readDouble());
            same(List.of("a", "b"), consumer.receive(PATIENCE_MS).getBody(List.class));
            must(consumer.receive(PATIENCE_MS) != null, "a message without body");
        }
    }

    private void headers() throws Exception {
        try (Connection connection = connect("")) {
            Session session = session(connection);
            Queue queue = session.createQueue("jms.headers");
            Topic replies = session.createTopic("jms.replies");
            MessageConsumer consumer = session.createConsumer(queue);
            MessageProducer producer = session.createProducer(queue);
            for (int mode : new int[] {DeliveryMode.PERSISTENT, DeliveryMode.NON_PERSISTENT}) {
                Message message = session.createTextMessage("x");
                message.setJMSCorrelationID("correlation");
                message.setJMSType("type");
                message.setJMSReplyTo(replies);
                message.setStringProperty("string", "v\u00e4lue");
                message.setBooleanProperty("boolean", true);
                message.setByteProperty("byte", (byte) -1);
                message.setShortProperty("short", (short) -2);
                message.setIntProperty("int", -3);
                message.setLongProperty("long", Long.MIN_VALUE);
                message.setFloatProperty("float", 1.5f);
                message.setDoubleProperty("double", 2.5);
                producer.send(message, mode, 7, 1_000_000);
                Message received = consumer.receive(PATIENCE_MS);
                same(message.getJMSMessageID(), received.getJMSMessageID());
                same(mode, received.getJMSDeliveryMode());
                same(7, received.getJMSPriority());
                same(queue, received.getJMSDestination());
                same("correlation", received.getJMSCorrelationID());
                same("type", received.getJMSType());
                same(replies, received.getJMSReplyTo());
                same(message.getJMSTimestamp(), received.getJMSTimestamp());
                must(Math.abs(message.getJMSExpiration() - received.getJMSExpiration()) < 60_000, received.getJMSExpiration());
                same(false, received.getJMSRedelivered());
                same(1, received.getIntProperty("JMSXDeliveryCount"));
                for (Enumeration<?> names = message.getPropertyNames(); names.hasMoreElements();) {
                    String name = (String) names.nextElement();
                    if (!name.startsWith("JMSX")) {
                        same(message.getObjectProperty(name), received.getObjectProperty(name));
                    }
                }
            }
        }
    }

    private void clientAcknowledge() throws Exception {
        try (Connection connection = connect("")) {
            Session session = connection.createSession(Session.CLIENT_ACKNOWLEDGE);
            Queue queue = session.createQueue("jms.client");
            send(session, queue, "1", "2", "3", "4");
            MessageConsumer consumer = session.createConsumer(queue);
            receives(consumer, "1");
            consumer.receive(PATIENCE_MS).acknowledge();
            receives(consumer, "3");
            session.close();
            Session next = connection.createSession(Session.CLIENT_ACKNOWLEDGE);
            consumer = next.createConsumer(queue);
            Message again = consumer.receive(PATIENCE_MS);
            same("3", text(again));
            must(again.getJMSRedelivered() && again.getIntProperty("JMSXDeliveryCount") == 2, again);
            next.recover();
            receives(consumer, "3");
            Message last = consumer.receive(PATIENCE_MS);
            same("4", text(last));
            last.acknowledge();
            receivesNothing(consumer);
        }
    }

    private void individualAcknowledge() throws Exception {
        try (Connection connection = connect("")) {
            Session session = connection.createSession(INDIVIDUAL_ACKNOWLEDGE);
            Queue queue = session.createQueue("jms.individual");
            send(session, queue, "1", "2", "3");
            MessageConsumer consumer = session.createConsumer(queue);
            receives(consumer, "1");
            consumer.receive(PATIENCE_MS).acknowledge();
            receives(consumer, "3");
            session.close();
            consumer = session(connection).createConsumer(queue);
            receives(consumer, "1", "3");
            receivesNothing(consumer);
        }
    }

    private void prefetch() throws Exception {
        for (int prefetch : new int[] {0, 1, 3}) {
            try (Connection connection = connect("&jms.prefetchPolicy.all=" + prefetch)) {
                Session session = session(connection);
                Queue queue = session.createQueue("jms.prefetch");
                MessageConsumer first = session.createConsumer(queue);
                MessageConsumer second = session(connection).createConsumer(queue);
                String[] texts = {"1", "2", "3", "4", "5", "6", "7", "8"};
                send(session, queue, texts);
                List<String> seen = new ArrayList<>();
                while (seen.size() < texts.length) {
                    for (MessageConsumer consumer : List.of(first, second)) {
                        Message message = consumer.receive(prefetch == 0 ? PATIENCE_MS : 50);
                        if (message != null) {
                            seen.add(text(message));
                        }
                        if (seen.size() == texts.length) {
                            break;
                        }
                    }
                }
                Collections.sort(seen);
                same(List.of(texts), seen);
                receivesNothing(first);
                receivesNothing(second);
            }
        }
    }

    private void throwingListener() throws Exception {
        try (Connection connection = connect("")) {
            Session session = session(connection);
            Queue queue = session.createQueue("jms.listener");
            var taken = new java.util.concurrent.LinkedBlockingQueue<String>();
            boolean[] hasThrown = {false};
            session.createConsumer(queue).setMessageListener(message -> {
                if (!hasThrown[0]) {
                    hasThrown[0] = true;
                    throw new IllegalStateException("a listener that fails once");
                }
                try {
                    taken.add(text(message));
                } catch (JMSException error) {
                    taken.add(error.toString());
                }
            });
            send(session(connection), queue, "1");
            same("1", taken.poll(PATIENCE_MS, java.util.concurrent.TimeUnit.MILLISECONDS));
        }
    }

    private void timeToLive() throws Exception {
        // The library would drop them itself.
        try (Connection connection = connect("&jms.localMessageExpiry=false")) {
            Session session = session(connection);
            Queue queue = session.createQueue("jms.expiry");
            MessageProducer producer = session.createProducer(queue);
            producer.setTimeToLive(50);
            Message brief = session.createTextMessage("brief");
            producer.send(brief);
            producer.setTimeToLive(0);
            producer.send(session.createTextMessage("for ever"));
            while (System.currentTimeMillis() <= brief.getJMSExpiration()) {
                Thread.sleep(5);
            }
            MessageConsumer consumer = session.createConsumer(queue);
            receives(consumer, "for ever");
            receivesNothing(consumer);
        }
    }

    private void browser() throws Exception {
        try (Connection connection = connect("")) {
            Session session = session(connection);
            Queue queue = session.createQueue("jms.browser");
            QueueBrowser empty = session.createBrowser(queue);
            must(!empty.getEnumeration().hasMoreElements(), "nothing is there");
            empty.close();
            String[] texts = new String[50];
            Arrays.setAll(texts, Integer::toString);
            send(session, queue, texts);
            for (int round = 0; round < 2; round++) {
                List<String> seen = new ArrayList<>();
                QueueBrowser browser = session.createBrowser(queue);
                for (var all = browser.getEnumeration(); all.hasMoreElements();) {
                    seen.add(text((Message) all.nextElement()));
                }
                same(List.of(texts), seen);
                browser.close();
            }
            MessageConsumer consumer = session.createConsumer(queue);
            receives(consumer, texts);
            receivesNothing(consumer);
        }
    }

    private void topics() throws Exception {
        try (Connection connection = connect("")) {
            Session session = session(connection);
            Topic topic = session.createTopic("jms.topics.a");
            send(session, topic, "nobody");
            MessageConsumer first = session.createConsumer(topic);
            MessageConsumer second = session.createConsumer(session.createTopic("jms.topics.*"));
            // A queue of the same name is another destination.
            MessageConsumer queue = session.createConsumer(session.createQueue("jms.topics.a"));
            send(session, topic, "1", "2");
            receives(first, "1", "2");
            receives(second, "1");
            same(topic, second.receive(PATIENCE_MS).getJMSDestination());
            receivesNothing(first);
            receivesNothing(queue);
        }
    }

    private void noLocal() throws Exception {
        try (Connection own = connect("&jms.clientID=jms-own"); Connection other = connect("")) {
            Session session = session(own);
            Topic topic = session.createTopic("jms.local");
            MessageConsumer consumer = session.createConsumer(topic, null, true);
            send(session, topic, "own");
            send(session(other), topic, "other");
            receives(consumer, "other");
            receivesNothing(consumer);
        }
    }

    private void durableSubscriptions() throws Exception {
        String id = "&jms.clientID=jms-durable";
        try (Connection publisher = connect("")) {
            Session session = session(publisher);
            Topic topic = session.createTopic("jms.durable");
            try (Connection connection = connect(id)) {
                MessageConsumer consumer = session(connection).createDurableSubscriber(topic, "sub");
                send(session, topic, "1", "2");
                receives(consumer, "1", "2");
                fails(JMSException.class, "sub", () -> session(connection).createDurableSubscriber(topic, "sub"));
                fails(JMSException.class, "", () -> session(connection).unsubscribe("sub"));
            }
            send(session, topic, "3");
            try (Connection connection = connect(id)) {
                Session its = session(connection);
                MessageConsumer consumer = its.createDurableConsumer(topic, "sub");
                receives(consumer, "3");
                consumer.close();
                send(session, topic, "4");
                its.unsubscribe("sub");
                fails(InvalidDestinationException.class, "sub", () -> its.unsubscribe("sub"));
                consumer = its.createDurableConsumer(topic, "sub");
                receivesNothing(consumer);
                send(session, topic, "5");
                receives(consumer, "5");
                consumer.close();
                // Another topic makes another subscription.
                consumer = its.createDurableConsumer(session.createTopic("jms.durable.other"), "sub");
                send(session, topic, "6");
                receivesNothing(consumer);
                consumer.close();
                its.unsubscribe("sub");
            }
        }
    }

    /** A request with a reply to a temporary destination. */
    private void temporary(boolean isTopic) throws Exception {
        try (Connection asks = connect(""); Connection answers = connect("")) {
            Session asking = session(asks);
            Session answering = session(answers);
            Queue requests = asking.createQueue("jms.requests");
            Destination own = isTopic ? asking.createTemporaryTopic() : asking.createTemporaryQueue();
            MessageConsumer replies = asking.createConsumer(own);
            for (int round = 0; round < 2; round++) {
                Message request = asking.createTextMessage("request");
                request.setJMSReplyTo(own);
                asking.createProducer(requests).send(request);
                MessageConsumer consumer = answering.createConsumer(requests);
                Message received = consumer.receive(PATIENCE_MS);
                consumer.close();
                Destination to = received.getJMSReplyTo();
                same(own.toString(), to.toString());
                must(isTopic ? to instanceof TemporaryTopic : to instanceof TemporaryQueue, to.getClass());
                // A producer for it, and one for anything.
                MessageProducer producer = answering.createProducer(round == 0 ? to : null);
                Message reply = answering.createTextMessage("reply");
                if (round == 0) {
                    producer.send(reply);
                } else {
                    producer.send(to, reply);
                }
                receives(replies, "reply");
            }
            Destination theirs = isTopic ? answering.createTopic(own.toString()) : answering.createQueue(own.toString());
            fails(JMSException.class, "only the client that made", () -> answering.createConsumer(theirs));
            if (isTopic) {
                MessageConsumer second = asking.createConsumer(own);
                send(answering, own, "to all");
                receives(second, "to all");
                receives(replies, "to all");
                second.close();
            }
            MessageProducer late = answering.createProducer(theirs);
            replies.close();
            if (own instanceof TemporaryTopic topic) {
                topic.delete();
            } else {
                ((TemporaryQueue) own).delete();
            }
            fails(JMSException.class, "", () -> late.send(answering.createTextMessage("too late")));
            fails(InvalidDestinationException.class, "", () -> answering.createProducer(theirs));
        }
    }

    private void anonymousProducer() throws Exception {
        try (Connection connection = connect("")) {
            Session session = session(connection);
            Queue queue = session.createQueue("jms.anonymous");
            Topic topic = session.createTopic("jms.anonymous");
            TemporaryTopic temporaryTopic = session.createTemporaryTopic();
            TemporaryQueue temporaryQueue = session.createTemporaryQueue();
            MessageProducer producer = session.createProducer(null);
            for (Destination destination : List.of(queue, topic, temporaryQueue, temporaryTopic)) {
                MessageConsumer consumer = session.createConsumer(destination);
                producer.send(destination, session.createTextMessage("1"));
                Message received = consumer.receive(PATIENCE_MS);
                same("1", text(received));
                same(destination.toString(), received.getJMSDestination().toString());
                receivesNothing(consumer);
                consumer.close();
            }
            Queue unknown = session.createQueue("$TMP$.nobody.1.1");
            fails(InvalidDestinationException.class, "", () -> producer.send(unknown, session.createMessage()));
        }
    }

    private void largeMessages() throws Exception {
        try (Connection connection = connect("")) {
            Session session = session(connection);
            Queue queue = session.createQueue("jms.large");
            byte[] body = new byte[5_000_000];
            for (int index = 0; index < body.length; index++) {
                body[index] = (byte) (index * 31 / 7);
            }
            BytesMessage message = session.createBytesMessage();
            message.writeBytes(body);
            MessageProducer producer = session.createProducer(queue);
            producer.send(message);
            MessageConsumer consumer = session.createConsumer(queue);
            must(Arrays.equals(body, consumer.receive(PATIENCE_MS).getBody(byte[].class)), "the same bytes");
            BytesMessage tooLarge = session.createBytesMessage();
            tooLarge.writeBytes(new byte[17 << 20]);
            fails(JMSException.class, "", () -> producer.send(tooLarge));
            // The connection lives on.
            send(session, queue, "after it");
            receives(consumer, "after it");
        }
    }

    private void selectors() throws Exception {
        String words = "message selectors are not supported";
        try (Connection connection = connect("&jms.clientID=jms-selector")) {
            Session session = session(connection);
            Queue queue = session.createQueue("jms.selector");
            Topic topic = session.createTopic("jms.selector");
            fails(JMSException.class, words, () -> session.createConsumer(queue, "a = 1"));
            fails(JMSException.class, words, () -> session.createConsumer(topic, "a = 1"));
            fails(JMSException.class, words, () -> session.createDurableConsumer(topic, "s", "a = 1", false));
            fails(JMSException.class, words, () -> session.createBrowser(queue, "a = 1").getEnumeration());
            send(session, queue, "1");
            receives(session.createConsumer(queue), "1");
        }
    }

    private void transactions() throws Exception {
        try (Connection connection = connect("")) {
            fails(JMSException.class, "transactions are not supported", () -> connection.createSession(Session.SESSION_TRANSACTED));
            Session session = session(connection);
            Queue queue = session.createQueue("jms.transactions");
            send(session, queue, "1");
            receives(session.createConsumer(queue), "1");
        }
    }

    private void sharedSubscriptions() throws Exception {
        try (Connection connection = connect("&jms.clientID=jms-shared")) {
            Session session = session(connection);
            Topic topic = session.createTopic("jms.shared");
            fails(JMSException.class, "hared subscriptions", () -> session.createSharedConsumer(topic, "s"));
            fails(JMSException.class, "hared subscriptions", () -> session.createSharedDurableConsumer(topic, "s"));
        }
    }

    private void deliveryDelay() throws Exception {
        try (Connection connection = connect("")) {
            Session session = session(connection);
            MessageProducer producer = session.createProducer(session.createQueue("jms.delay"));
            producer.setDeliveryDelay(1000);
            fails(JMSException.class, "elay", () -> producer.send(session.createMessage()));
        }
    }

    private void clientIdInUse() throws Exception {
        String id = "&jms.clientID=jms-twice&failover.startupMaxReconnectAttempts=1&failover.maxReconnectAttempts=1";
        try (Connection connection = connect(id)) {
            fails(InvalidClientIDException.class, "jms-twice", () -> connect(id));
            session(connection);
        }
        connect(id).close();
    }

    /** Each side hears of the other in time although nothing happens. */
    private void idleConnections() throws Exception {
        try (Connection connection = connect("&failover.nested.amqp.idleTimeout=1000&failover.maxReconnectAttempts=0")) {
            Session session = session(connection);
            Queue queue = session.createQueue("jms.idle");
            MessageConsumer consumer = session.createConsumer(queue);
            Thread.sleep(2500);
            send(session, queue, "1");
            receives(consumer, "1");
        }
    }

    /** What a client has on a server, it has on the next one. */
    private void takeover() throws Exception {
        Connection connection = connect("&jms.clientID=jms-takeover");
        Connection other = connect("");
        Session session = session(connection);
        TemporaryQueue queue = session.createTemporaryQueue();
        TemporaryTopic topic = session.createTemporaryTopic();
        TemporaryTopic unread = session.createTemporaryTopic();
        String unreadName = unread.getTopicName();
        Topic news = session.createTopic("jms.news");
        Destination[] destinations = {queue, topic, news, news};
        MessageConsumer[] consumers = {
            session.createConsumer(queue), session.createConsumer(topic), session.createConsumer(news),
            session.createDurableConsumer(news, "durable")};
        // What the others were told before.
        Message request = session.createMessage();
        Session its = session(other);
        Destination[] told = new Destination[3];
        for (int index = 0; index < told.length; index++) {
            request.setJMSReplyTo(index < 2 ? destinations[index] : unread);
            Queue requests = session.createQueue("jms.takeover");
            session.createProducer(requests).send(request);
            MessageConsumer consumer = its.createConsumer(requests);
            told[index] = consumer.receive(PATIENCE_MS).getJMSReplyTo();
            consumer.close();
        }
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        for (int round = 0; round < options.number("count"); round++) {
            String text = "round " + round;
            check("temporary_queue_" + round, () -> {
                send(its, told[0], text);
                reaches(consumers[0], text);
            });
            check("temporary_topic_" + round, () -> {
                send(its, told[1], text);
                reaches(consumers[1], text);
            });
            check("temporary_topic_without_consumer_" + round, () -> {
                same(unreadName, unread.getTopicName());
                MessageConsumer consumer = session.createConsumer(unread);
                send(its, told[2], text);
                reaches(consumer, text);
                consumer.close();
            });
            check("subscriptions_" + round, () -> {
                send(its, news, text);
                reaches(consumers[2], text);
                reaches(consumers[3], text);
            });
            System.out.println("ready");
            System.out.flush();
            input.readLine();
        }
        connection.close();
        other.close();
    }

    /** The user may send to and receive from `drill.open`, and neither to nor from `secret`. */
    private void logins() throws Exception {
        String[] mechanisms = {"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"};
        for (String mechanism : mechanisms) {
            check("wrong_password_" + mechanism, () -> {
                var factory = options.factory("&failover.nested.amqp.saslMechanisms=" + mechanism);
                fails(JMSSecurityException.class, "", () -> factory.createConnection(options.text("user"), "wrong").start());
            });
            check("permissions_" + mechanism, () -> {
                try (Connection connection = connect("&failover.nested.amqp.saslMechanisms=" + mechanism)) {
                    Session session = session(connection);
                    Queue open = session.createQueue("drill.open");
                    send(session, open, "1");
                    receives(session.createConsumer(open), "1");
                    for (Destination secret : List.of(session.createQueue("secret"), session.createTopic("secret"))) {
                        String words = "no permission";
                        fails(JMSSecurityException.class, words, () -> session.createProducer(secret));
                        fails(JMSSecurityException.class, words, () -> session.createConsumer(secret));
                        fails(JMSSecurityException.class, words, () -> session.createProducer(null).send(secret, session.createMessage()));
                    }
                }
            });
        }
    }
}
