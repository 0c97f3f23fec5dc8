package compare;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.confluent.parallelconsumer.ParallelConsumerOptions;
import io.confluent.parallelconsumer.ParallelConsumerOptions.CommitMode;
import io.confluent.parallelconsumer.ParallelConsumerOptions.ProcessingOrder;
import io.confluent.parallelconsumer.ParallelStreamProcessor;
import io.confluent.parallelconsumer.vertx.VertxParallelEoSStreamProcessor;
import io.vertx.core.Future;
import io.vertx.core.Vertx;
import io.vertx.core.VertxOptions;
import io.vertx.core.buffer.Buffer;
import io.vertx.ext.web.client.WebClient;
import io.vertx.ext.web.client.WebClientOptions;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * Confluent's Parallel Consumer: Kafka topic, subscriptions of the event's type, signed POST, offset commit.
 *
 * <p>Environment: BOOTSTRAP TOPIC GROUP URL SECRET CONCURRENCY ORDER (UNORDERED, KEY, PARTITION) ENGINE (vertx, core:
 * its own threads with java.net.http) SESSION_TIMEOUT_MS.
 */
public final class Dispatcher {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final Map<String, List<String>> SUBSCRIPTIONS = new HashMap<>();
    private static SecretKeySpec key;
    private static final ThreadLocal<Mac> MAC = ThreadLocal.withInitial(() -> {
        try {
            Mac mac = Mac.getInstance("HmacSHA256");
            mac.init(key);
            return mac;
        } catch (GeneralSecurityException error) {
            throw new IllegalStateException(error);
        }
    });

    private record Signed(String id, String timestamp, String signature) {}

    /** By the specification of Standard Webhooks. */
    private static Signed sign(String id, byte[] body) {
        String timestamp = Long.toString(System.currentTimeMillis() / 1000);
        Mac mac = MAC.get();
        mac.update((id + "." + timestamp + ".").getBytes(StandardCharsets.UTF_8));
        return new Signed(id, timestamp, "v1," + Base64.getEncoder().encodeToString(mac.doFinal(body)));
    }

    private static String variable(String name, String otherwise) {
        return System.getenv().getOrDefault(name, otherwise);
    }

    private static ParallelConsumerOptions<byte[], byte[]> options(int concurrency) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", variable("BOOTSTRAP", "127.0.0.1:9092"));
        properties.put("group.id", variable("GROUP", "parallel-consumer"));
        properties.put("enable.auto.commit", "false");
        properties.put("auto.offset.reset", "earliest");
        int session = Integer.parseInt(variable("SESSION_TIMEOUT_MS", "45000"));
        properties.put("session.timeout.ms", session);
        properties.put("heartbeat.interval.ms", Math.min(3000, session / 4));
        var bytes = new ByteArrayDeserializer();
        return ParallelConsumerOptions.<byte[], byte[]>builder()
                .consumer(new KafkaConsumer<>(properties, bytes, bytes))
                .ordering(ProcessingOrder.valueOf(variable("ORDER", "UNORDERED")))
                .maxConcurrency(concurrency)
                .commitMode(CommitMode.PERIODIC_CONSUMER_ASYNCHRONOUS)
                .build();
    }

    private static void runOnVertx(int concurrency, List<String> topics) {
        Vertx vertx = Vertx.vertx(new VertxOptions().setEventLoopPoolSize(2));
        WebClient web = WebClient.create(vertx, new WebClientOptions()
                .setMaxPoolSize(concurrency)
                .setKeepAlive(true)
                .setTcpNoDelay(true)
                .setConnectTimeout(5000)
                .setMaxWaitQueueSize(-1));
        var processor = new VertxParallelEoSStreamProcessor<byte[], byte[]>(vertx, web, options(concurrency));
        processor.subscribe(topics);
        processor.vertxFuture(context -> {
            byte[] body = context.getSingleConsumerRecord().value();
            JsonNode event;
            try {
                event = JSON.readTree(body);
            } catch (IOException error) {
                return Future.succeededFuture();
            }
            List<Future<?>> futures = new ArrayList<>();
            for (String url : SUBSCRIPTIONS.getOrDefault(event.path("type").asText(), List.of())) {
                Signed signed = sign(event.path("id").asText(), body);
                futures.add(web.postAbs(url)
                        .timeout(30000)
                        .putHeader("content-type", "application/json")
                        .putHeader("webhook-id", signed.id())
                        .putHeader("webhook-timestamp", signed.timestamp())
                        .putHeader("webhook-signature", signed.signature())
                        .sendBuffer(Buffer.buffer(body))
                        .compose(answer -> answer.statusCode() / 100 == 2
                                ? Future.succeededFuture()
                                : Future.failedFuture("HTTP " + answer.statusCode())));
            }
            return futures.size() == 1 ? futures.get(0) : Future.all(futures);
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> processor.closeDrainFirst(Duration.ofSeconds(10))));
    }

    private static void runOnThreads(int concurrency, List<String> topics) {
        HttpClient client = HttpClient.newBuilder()
                .version(HttpClient.Version.HTTP_1_1)
                .connectTimeout(Duration.ofSeconds(5))
                .build();
        ParallelStreamProcessor<byte[], byte[]> processor =
                ParallelStreamProcessor.createEosStreamProcessor(options(concurrency));
        processor.subscribe(topics);
        processor.poll(context -> {
            byte[] body = context.getSingleConsumerRecord().value();
            try {
                JsonNode event = JSON.readTree(body);
                for (String url : SUBSCRIPTIONS.getOrDefault(event.path("type").asText(), List.of())) {
                    Signed signed = sign(event.path("id").asText(), body);
                    HttpRequest request = HttpRequest.newBuilder(URI.create(url))
                            .timeout(Duration.ofSeconds(30))
                            .header("content-type", "application/json")
                            .header("webhook-id", signed.id())
                            .header("webhook-timestamp", signed.timestamp())
                            .header("webhook-signature", signed.signature())
                            .POST(HttpRequest.BodyPublishers.ofByteArray(body))
                            .build();
                    var answer = client.send(request, HttpResponse.BodyHandlers.discarding());
                    if (answer.statusCode() / 100 != 2) {
                        throw new IllegalStateException("HTTP " + answer.statusCode());
                    }
                }
            } catch (IOException | InterruptedException error) {
                throw new IllegalStateException(error);
            }
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> processor.closeDrainFirst(Duration.ofSeconds(10))));
    }

    public static void main(String[] arguments) throws InterruptedException {
        key = new SecretKeySpec(variable("SECRET", "secret").getBytes(StandardCharsets.UTF_8), "HmacSHA256");
        SUBSCRIPTIONS.put("user.created", List.of(variable("URL", "http://127.0.0.1:9930/hook")));
        int concurrency = Integer.parseInt(variable("CONCURRENCY", "16"));
        List<String> topics = List.of(variable("TOPIC", "events"));
        if (variable("ENGINE", "vertx").equals("vertx")) {
            runOnVertx(concurrency, topics);
        } else {
            runOnThreads(concurrency, topics);
        }
        Thread.currentThread().join();
    }

    private Dispatcher() {}
}
