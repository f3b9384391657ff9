// Apache's own Java client on a cluster that is mistreated; see scripts/clients/cluster.
//
//   java -cp 'LIB/*' ClusterJava.java BOOTSTRAP TOPIC SECONDS RATE HISTORY REPLICAS PARTITIONS IN_SYNC BYTES

import java.io.PrintWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.AuthorizationException;
import org.apache.kafka.common.errors.InvalidProducerEpochException;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.OutOfOrderSequenceException;
import org.apache.kafka.common.errors.ProducerFencedException;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

public class ClusterJava {
    static final String NAME = "java";
    // For what is on the way, and for the last reading: a hang, not a measurement.
    static final Duration PATIENCE = Duration.ofSeconds(180);

    static String bootstrap, topic;
    static int replicas, partitions, inSync, bytes;
    static Path stop;
    static History history;

    /** Writes what is done and seen, for perf history to judge; the form is described in net/src/history.rs. */
    static class History implements AutoCloseable {
        final PrintWriter file;
        final Map<String, Integer> counts = new TreeMap<>();

        History(Path path) throws Exception {
            file = new PrintWriter(Files.newBufferedWriter(path));
        }

        /** offset and call are left out below 0, value if it is null; no text of ours has anything to escape. */
        synchronized void write(String op, String client, int partition, long offset, String value, long call) {
            counts.merge(op, 1, Integer::sum);
            var now = Instant.now();
            var line = new StringBuilder("{\"op\":\"").append(op).append("\",\"client\":\"").append(client);
            line.append("\",\"topic\":\"").append(topic).append("\",\"partition\":").append(partition);
            if (offset >= 0) line.append(",\"offset\":").append(offset);
            if (value != null) line.append(",\"value\":\"").append(value).append('"');
            if (call >= 0) line.append(",\"call\":").append(call);
            line.append(",\"time_ns\":").append(now.getEpochSecond() * 1_000_000_000L + now.getNano()).append('}');
            file.println(line);
        }

        @Override
        public synchronized void close() {
            file.close();
        }
    }

    static void complain(String what, Object error) {
        System.out.println("     " + NAME + ": " + what + ": " + error);
    }

    /** Repeats what the cluster refuses for the moment. */
    static <T> T insist(String what, Callable<T> action) throws Exception {
        for (long deadline = System.nanoTime() + PATIENCE.toNanos(); ; Thread.sleep(500)) {
            try {
                return action.call();
            } catch (Exception error) {
                complain(what, error);
                if (System.nanoTime() > deadline) throw error;
            }
        }
    }

    static Object create() throws Exception {
        try (var admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            var config = Map.of("min.insync.replicas", Integer.toString(inSync));
            var created = new NewTopic(topic, partitions, (short) replicas).configs(config);
            admin.createTopics(List.of(created)).all().get(30, TimeUnit.SECONDS);
        } catch (ExecutionException error) {
            if (!(error.getCause() instanceof TopicExistsException)) throw error;
        }
        return null;
    }

    /** Whether an error says that a record can never come to be. */
    static boolean neverSent(Exception error) {
        return error instanceof RecordTooLargeException
            || error instanceof InvalidTopicException
            || error instanceof AuthorizationException;
    }

    static class Producer implements AutoCloseable {
        static int made = 0;
        final String name = NAME + "/producer-" + ++made;
        final AtomicBoolean gaveUp = new AtomicBoolean();
        final KafkaProducer<String, String> client = new KafkaProducer<>(
            Map.of(
                "bootstrap.servers", bootstrap,
                "acks", "all",
                "enable.idempotence", true,
                "linger.ms", 5,
                "request.timeout.ms", 2_000,
                "delivery.timeout.ms", 120_000,
                "max.block.ms", 10_000,
                "reconnect.backoff.max.ms", 500),
            new StringSerializer(),
            new StringSerializer());

        void send(int partition, String value) {
            history.write("send", name, partition, -1, value, -1);
            try {
                client.send(new ProducerRecord<>(topic, partition, null, value), (metadata, error) -> {
                    if (error == null) {
                        history.write("ack", name, partition, metadata.offset(), value, -1);
                        return;
                    }
                    history.write(neverSent(error) ? "fail" : "info", name, partition, -1, value, -1);
                    if (error instanceof ProducerFencedException
                        || error instanceof InvalidProducerEpochException
                        || error instanceof OutOfOrderSequenceException) gaveUp.set(true);
                });
            } catch (KafkaException error) {
                // Thrown instead of told: whatever became of it, this producer is of no more use.
                complain("send", error);
                gaveUp.set(true);
            }
        }

        @Override
        public void close() {
            client.close(PATIENCE);
        }
    }

    static void produce(double seconds, double rate) throws Exception {
        var producer = new Producer();
        long begin = System.nanoTime(), n = 0;
        for (double now; (now = (System.nanoTime() - begin) / 1e9) < seconds && !Files.exists(stop); ) {
            if (n >= now * rate) {
                Thread.sleep(1);
                continue;
            }
            if (producer.gaveUp.get()) {
                complain("a new producer", "the old one gave up");
                producer.client.close(Duration.ofSeconds(10));
                producer = new Producer();
            }
            var value = NAME + "-" + n;
            producer.send((int) (n % partitions), value + ".".repeat(Math.max(0, bytes - value.length())));
            n++;
        }
        producer.close();
    }

    static List<TopicPartition> all() {
        var all = new ArrayList<TopicPartition>();
        for (int p = 0; p < partitions; p++) all.add(new TopicPartition(topic, p));
        return all;
    }

    static KafkaConsumer<String, String> reader() {
        Map<String, Object> config = Map.of(
            "bootstrap.servers", bootstrap,
            "enable.auto.commit", false,
            "auto.offset.reset", "none",
            "max.poll.records", 1000,
            "default.api.timeout.ms", 10_000,
            "reconnect.backoff.max.ms", 500);
        var consumer = new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer());
        consumer.assign(all());
        for (var partition : all()) consumer.seek(partition, 0);
        return consumer;
    }

    static long calls = 0;

    static synchronized long nextCall() {
        return ++calls;
    }

    /** Polls once, and notes how far it got. */
    static void take(KafkaConsumer<String, String> consumer, String who, Map<Integer, Long> positions) {
        var batch = consumer.poll(Duration.ofMillis(200));
        long call = nextCall();
        for (var r : batch) {
            history.write("poll", who, r.partition(), r.offset(), r.value(), call);
            positions.put(r.partition(), r.offset() + 1);
        }
    }

    static void tail(AtomicBoolean stopping) {
        try (var consumer = reader()) {
            long asked = System.nanoTime();
            while (!stopping.get()) {
                try {
                    take(consumer, NAME + "/tail", new HashMap<>());
                    if (System.nanoTime() > asked + 1_000_000_000L) {
                        asked = System.nanoTime();
                        consumer.endOffsets(all(), Duration.ofSeconds(1))
                            .forEach((p, end) -> history.write("watermark", NAME + "/tail", p.partition(), end, null, -1));
                    }
                } catch (KafkaException error) {
                    complain("tail", error);
                }
            }
        }
    }

    static int tries = 0;

    /** Reads everything from the beginning, with a fresh client. */
    static Object last() throws Exception {
        var who = NAME + "/final-" + ++tries;
        try (var consumer = reader()) {
            var behind = new HashMap<Integer, Long>();
            consumer.endOffsets(all()).forEach((p, end) -> behind.put(p.partition(), end));
            var positions = new HashMap<Integer, Long>();
            for (long deadline = System.nanoTime() + PATIENCE.toNanos(); !behind.isEmpty(); ) {
                if (System.nanoTime() > deadline) throw new IllegalStateException("not read to the end: " + behind);
                take(consumer, who, positions);
                behind.entrySet().removeIf(entry -> {
                    long at = positions.getOrDefault(entry.getKey(), 0L);
                    if (at < entry.getValue()) return false;
                    history.write("end", who, entry.getKey(), at, null, -1);
                    return true;
                });
            }
        }
        return null;
    }

    public static void main(String[] args) throws Exception {
        bootstrap = args[0];
        topic = args[1];
        replicas = Integer.parseInt(args[5]);
        partitions = Integer.parseInt(args[6]);
        inSync = Integer.parseInt(args[7]);
        bytes = Integer.parseInt(args[8]);
        stop = Path.of(args[4] + ".stop");
        history = new History(Path.of(args[4]));
        insist("creating the topic", ClusterJava::create);
        var stopping = new AtomicBoolean();
        var tail = new Thread(() -> tail(stopping));
        tail.start();
        produce(Double.parseDouble(args[2]), Double.parseDouble(args[3]));
        Thread.sleep(1000);
        stopping.set(true);
        tail.join();
        insist("reading everything", ClusterJava::last);
        history.close();
        var told = new StringBuilder("ok   " + NAME + ":");
        for (var op : List.of("send", "ack", "fail", "info", "poll")) told.append(" ").append(history.counts.getOrDefault(op, 0)).append(" ").append(op);
        System.out.println(told);
        System.exit(0);
    }
}
