import java.io.ByteArrayInputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Base64;
import java.util.HashMap;
import java.util.Map;
import java.util.regex.Pattern;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;
import org.apache.qpid.jms.JmsConnectionFactory;

/** The options of a program, and how its connections are made. */
final class Options {
    private final Map<String, String> values = new HashMap<>(Map.of(
        "count", "4", "window", "100", "rate", "0", "size", "1024",
        "large-every", "0", "large-size", "100000", "hold", "10", "durable", "0",
        "max-frame-size", "0"));
    final String mode;

    Options(String[] arguments) {
        mode = arguments[0];
        for (int index = 1; index + 1 < arguments.length; index += 2) {
            values.put(arguments[index].replaceFirst("^--", ""), arguments[index + 1]);
        }
    }

    String text(String name) {
        return values.getOrDefault(name, "");
    }

    int number(String name) {
        return Integer.parseInt(text(name));
    }

    String[] list(String name) {
        return text(name).split(",");
    }

    /** Makes connections; with `more` options of the library, each behind an ampersand. */
    JmsConnectionFactory factory(String more) throws Exception {
        // The library tries the servers in turn; takeovers are shorter than its longest delay of 30 s.
        String url = "failover:(" + text("servers") + ")?failover.reconnectDelay=10&failover.maxReconnectDelay=100";
        if (number("max-frame-size") > 0) {
            url += "&failover.nested.amqp.maxFrameSize=" + text("max-frame-size");
        }
        if (!text("mechanism").isEmpty()) {
            url += "&failover.nested.amqp.saslMechanisms=" + text("mechanism");
        }
        JmsConnectionFactory factory = new JmsConnectionFactory(url + more);
        if (!text("trusted").isEmpty()) {
            factory.setSslContext(secrets());
        }
        if (!text("user").isEmpty()) {
            factory.setUsername(text("user"));
            factory.setPassword(Files.readString(Path.of(text("password-file"))).lines().findFirst().get());
        }
        return factory;
    }

    /** Java reads no PEM file by itself. */
    private SSLContext secrets() throws Exception {
        CertificateFactory certificates = CertificateFactory.getInstance("X.509");
        KeyStore trusted = KeyStore.getInstance("PKCS12");
        trusted.load(null, null);
        trusted.setCertificateEntry("issuer", certificates.generateCertificate(pem(text("trusted"), "CERTIFICATE")));
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(trusted);
        KeyManagerFactory keys = null;
        if (!text("identity").isEmpty()) {
            KeyStore own = KeyStore.getInstance("PKCS12");
            own.load(null, null);
            byte[] key = pem(text("identity"), "PRIVATE KEY").readAllBytes();
            Certificate[] chain = {certificates.generateCertificate(pem(text("identity"), "CERTIFICATE"))};
            KeyFactory made = KeyFactory.getInstance("EC");
            own.setKeyEntry("own", made.generatePrivate(new PKCS8EncodedKeySpec(key)), new char[0], chain);
            keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
            keys.init(own, new char[0]);
        }
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(keys == null ? null : keys.getKeyManagers(), trust.getTrustManagers(), null);
        return context;
    }

    private static ByteArrayInputStream pem(String file, String what) throws Exception {
        String label = "-----%s " + what + "-----";
        var pattern = Pattern.compile(label.formatted("BEGIN") + "(.*?)" + label.formatted("END"), Pattern.DOTALL);
        var found = pattern.matcher(Files.readString(Path.of(file)));
        if (!found.find()) {
            throw new IllegalArgumentException(file + " has no " + what);
        }
        return new ByteArrayInputStream(Base64.getMimeDecoder().decode(found.group(1).trim()));
    }
}
