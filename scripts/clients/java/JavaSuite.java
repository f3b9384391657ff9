// Apache's own Java client: creates, produces and reads back by assignment, without a group.
//
//   java -cp 'LIB/*' JavaSuite.java BOOTSTRAP TOPIC BASE OUT

import java.io.PrintWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public class JavaSuite {
    static final int PARTITIONS = 6;
    static final long DEADLINE_MS = 60_000;
    static final String LARGE = "abcdefghijklmnopqrstuvwxyz".repeat(1154);

    static String bootstrap, topic;
    static long base;
    static Path out;

    record Run(String name, String codec, String acks, boolean idempotent, int count, int first) {}

    record Content(byte[] key, byte[] value, RecordHeaders headers) {}

    /** The rule of record.py, with the full headers. */
    static Content content(String run, int i) {
        var headers = new RecordHeaders();
        boolean nothing = i % 1000 == 999;
        if (i % 3 == 0 || nothing) {
            headers.add("i", Integer.toString(i).getBytes()).add("run", run.getBytes());
            if (i % 15 == 0)
                headers.add("dup", "a".getBytes()).add("dup", "b".getBytes()).add("void", null).add("empty", new byte[0]);
        }
        if (nothing) return new Content(null, null, headers);
        if (i % 41 == 11) return new Content(("gone-" + run + "-" + i).getBytes(), null, headers);
        byte[] key = i % 50 == 7 ? null : ("key-" + i % 97).getBytes();
        int length = i % 2000 == 1999 ? 30_000 : i * 7 % 180;
        return new Content(key, ("java/" + run + "/" + i + "/" + LARGE.substring(0, length)).getBytes(), headers);
    }

    static void create() throws Exception {
        try (var admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            admin.createTopics(List.of(new NewTopic(topic, PARTITIONS, (short) 1))).all().get(30, TimeUnit.SECONDS);
            int found = 0;
            while (found != PARTITIONS)
                found = admin.describeTopics(List.of(topic)).allTopicNames().get(30, TimeUnit.SECONDS).get(topic).partitions().size();
        }
        System.out.println("ok   java: created " + topic);
    }

    static void produce(Run run, PrintWriter reports) throws Exception {
        Map<String, Object> config = Map.of(
            "bootstrap.servers", bootstrap,
            "acks", run.acks,
            "enable.idempotence", run.idempotent,
            "compression.type", run.codec,
            "linger.ms", 10,
            "batch.size", 64 * 1024);
        var sent = new ArrayList<Future<RecordMetadata>>(run.count);
        try (var producer = new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer())) {
            for (int i = 0; i < run.count; i++) {
                var c = content(run.name, i);
                sent.add(producer.send(new ProducerRecord<>(topic, null, base + run.first + i, c.key, c.value, c.headers)));
            }
            producer.flush();
            for (int i = 0; i < run.count; i++) {
                var metadata = sent.get(i).get(30, TimeUnit.SECONDS);
                if (!run.acks.equals("0"))
                    reports.println(run.first + i + "\t" + metadata.partition() + "\t" + metadata.offset());
            }
        }
        System.out.println("ok   java: produced " + run.count + " with " + run.codec + ", acks=" + run.acks + (run.idempotent ? ", idempotent" : ""));
    }

    static String hex(byte[] bytes) {
        return bytes == null ? "~" : HexFormat.of().formatHex(bytes);
    }

    static String line(ConsumerRecord<byte[], byte[]> r) {
        var headers = new ArrayList<String>();
        for (Header h : r.headers()) headers.add(h.key() + "=" + hex(h.value()));
        return r.partition() + "\t" + r.offset() + "\t" + r.timestamp() + "\t" + hex(r.key()) + "\t" + hex(r.value()) + "\t" + String.join(",", headers);
    }

    /** Reads from where the consumer stands until count records are in; returns the end of each partition. */
    static Map<Integer, Long> consume(KafkaConsumer<byte[], byte[]> consumer, String name, long count) throws Exception {
        var ends = new TreeMap<Integer, Long>();
        long seen = 0, deadline = System.currentTimeMillis() + DEADLINE_MS;
        try (var file = new PrintWriter(Files.newBufferedWriter(out.resolve(name + ".tsv")))) {
            while (System.currentTimeMillis() < deadline) {
                // One more poll after the last: whatever comes then is one too many, and shows.
                var batch = consumer.poll(Duration.ofMillis(500));
                if (seen >= count && batch.isEmpty()) break;
                for (var r : batch) {
                    file.println(line(r));
                    ends.put(r.partition(), r.offset() + 1);
                    seen++;
                }
            }
        }
        System.out.println((seen == count ? "ok   " : "FAIL ") + "java: read " + seen + " of " + count + " records from " + name);
        return ends;
    }

    public static void main(String[] args) throws Exception {
        bootstrap = args[0];
        topic = args[1];
        base = Long.parseLong(args[2]);
        out = Path.of(args[3]);
        var runs = new ArrayList<Run>();
        for (String text : Files.readAllLines(out.resolve("plan.tsv"))) {
            var f = text.split("\t");
            runs.add(new Run(f[0], f[1], f[2], f[3].equals("1"), Integer.parseInt(f[4]), Integer.parseInt(f[5])));
        }
        long total = runs.stream().mapToLong(Run::count).sum();

        create();
        try (var reports = new PrintWriter(Files.newBufferedWriter(out.resolve("reports.tsv")))) {
            for (var run : runs) produce(run, reports);
        }

        Map<String, Object> config = Map.of(
            "bootstrap.servers", bootstrap,
            "enable.auto.commit", false,
            "auto.offset.reset", "none",
            "max.poll.records", 5000);
        try (var consumer = new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            var partitions = new ArrayList<TopicPartition>();
            for (int p = 0; p < PARTITIONS; p++) partitions.add(new TopicPartition(topic, p));
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            var ends = consume(consumer, "earliest", total);

            long time = base + total * 5 / 6;
            var asked = new HashMap<TopicPartition, Long>();
            for (var p : partitions) asked.put(p, time);
            var later = new HashMap<Integer, Long>();
            consumer.offsetsForTimes(asked).forEach((p, found) -> later.put(p.partition(), found.offset()));
            var middle = new HashMap<Integer, Long>();
            ends.forEach((p, end) -> middle.put(p, end * 3 / 4));
            try (var starts = new PrintWriter(Files.newBufferedWriter(out.resolve("starts.tsv")))) {
                starts.println("time\t0\t" + time);
                consumer.endOffsets(partitions).forEach((p, end) -> starts.println("end\t" + p.partition() + "\t" + end));
                middle.forEach((p, offset) -> starts.println("offset\t" + p + "\t" + offset));
                later.forEach((p, offset) -> starts.println("timestamp\t" + p + "\t" + offset));
            }
            for (var read : List.of(Map.entry("offset", middle), Map.entry("timestamp", later))) {
                long count = 0;
                for (var start : read.getValue().entrySet()) {
                    consumer.seek(new TopicPartition(topic, start.getKey()), start.getValue());
                    count += ends.get(start.getKey()) - start.getValue();
                }
                consume(consumer, read.getKey(), count);
            }
        }
    }
}
