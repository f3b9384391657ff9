// A member of a group: Apache's own Java client; see group_member.py.
//
//   java -cp 'CLASSES:LIB/*' GroupJava BOOTSTRAP TOPIC GROUP NAME HISTORY PROTOCOL ASSIGNOR INSTANCE

import java.io.FileOutputStream;
import java.io.PrintStream;
import java.time.Duration;
import java.time.Instant;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;

public class GroupJava {
    static final int SESSION_MS = 6000, HEARTBEAT_MS = 500, BATCH = 50, WORK_MS = 10;
    static final Map<String, String> ASSIGNORS = Map.of(
        "range", "org.apache.kafka.clients.consumer.RangeAssignor",
        "roundrobin", "org.apache.kafka.clients.consumer.RoundRobinAssignor",
        "cooperative-sticky", "org.apache.kafka.clients.consumer.CooperativeStickyAssignor");

    static String topic, group, name;
    static PrintStream history;
    static KafkaConsumer<String, String> consumer;
    /** Processed and not committed yet. */
    static final Map<Integer, Long> pending = new TreeMap<>();

    /** One line; fields are what comes after those that all have. No text of ours has anything to escape. */
    static void write(StringBuilder out, String op, String fields) {
        var now = Instant.now();
        out.append("{\"op\":\"").append(op).append("\",\"client\":\"").append(name).append("\",").append(fields);
        out.append(",\"time_ns\":").append(now.getEpochSecond() * 1_000_000_000L + now.getNano()).append("}\n");
    }

    static String at(int partition) {
        return "\"topic\":\"" + topic + "\",\"partition\":" + partition;
    }

    static void flush(StringBuilder out) {
        history.print(out);
        history.flush();
    }

    static void commit(Collection<TopicPartition> partitions) {
        var offsets = new HashMap<TopicPartition, OffsetAndMetadata>();
        pending.forEach((p, offset) -> {
            var partition = new TopicPartition(topic, p);
            if (partitions == null || partitions.contains(partition)) offsets.put(partition, new OffsetAndMetadata(offset));
        });
        if (offsets.isEmpty()) return;
        try {
            consumer.commitSync(offsets);
        } catch (KafkaException error) {
            // A rebalance, or a coordinator that is gone: the next commit, or the next owner, makes up for it.
            System.out.println("     " + name + ": commit: " + error);
            return;
        }
        var out = new StringBuilder();
        offsets.forEach((p, o) -> {
            write(out, "commit", at(p.partition()) + ",\"group\":\"" + group + "\",\"offset\":" + o.offset());
            pending.remove(p.partition());
        });
        flush(out);
    }

    static void moved(String kind, Collection<TopicPartition> partitions) {
        var out = new StringBuilder();
        var generation = consumer.groupMetadata().generationId();
        var numbers = new TreeSet<Integer>();
        for (var p : partitions) numbers.add(p.partition());
        for (int p : numbers)
            write(out, "assign", at(p) + ",\"kind\":\"" + kind + "\"" + (generation < 0 ? "" : ",\"generation\":" + generation));
        flush(out);
    }

    static class Listener implements ConsumerRebalanceListener {
        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> assigned) {
            moved("assigned", assigned);
        }

        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> revoked) {
            commit(revoked);
            leave("revoked", revoked);
        }

        @Override
        public void onPartitionsLost(Collection<TopicPartition> lost) {
            leave("lost", lost);
        }

        void leave(String kind, Collection<TopicPartition> partitions) {
            for (var p : partitions) pending.remove(p.partition());
            moved(kind, partitions);
        }
    }

    static Map<String, Object> config(String bootstrap, String protocol, String assignor, String instance) {
        var config = new HashMap<String, Object>(Map.of(
            "bootstrap.servers", bootstrap,
            "group.id", group,
            "client.id", name,
            "group.protocol", protocol,
            "enable.auto.commit", false,
            "auto.offset.reset", "earliest",
            "max.poll.records", BATCH,
            "default.api.timeout.ms", 10_000));
        config.put("reconnect.backoff.max.ms", 500);
        if (!instance.equals("-")) config.put("group.instance.id", instance);
        if (protocol.equals("classic")) {
            config.put("session.timeout.ms", SESSION_MS);
            config.put("heartbeat.interval.ms", HEARTBEAT_MS);
            if (!assignor.equals("-")) config.put("partition.assignment.strategy", ASSIGNORS.get(assignor));
        } else if (!assignor.equals("-")) {
            config.put("group.remote.assignor", assignor);
        }
        return config;
    }

    public static void main(String[] args) throws Exception {
        topic = args[1];
        group = args[2];
        name = args[3];
        history = new PrintStream(new FileOutputStream(args[4], true), false);
        var stopping = new AtomicBoolean();
        var input = new Thread(() -> {
            try {
                while (System.in.read() >= 0) {}
            } catch (java.io.IOException error) {
                System.out.println("     " + name + ": " + error);
            }
            stopping.set(true);
        });
        input.setDaemon(true);
        input.start();
        consumer = new KafkaConsumer<>(config(args[0], args[5], args[6], args[7]), new StringDeserializer(), new StringDeserializer());
        consumer.subscribe(List.of(topic), new Listener());
        for (long call = 1; !stopping.get(); call++) {
            var batch = consumer.poll(Duration.ofMillis(100));
            var out = new StringBuilder();
            for (var r : batch) {
                write(out, "poll", at(r.partition()) + ",\"offset\":" + r.offset() + ",\"key\":\"" + r.key() + "\",\"value\":\"" + r.value() + "\",\"call\":" + call);
                pending.put(r.partition(), r.offset() + 1);
            }
            flush(out);
            if (!batch.isEmpty()) Thread.sleep(WORK_MS);
            commit(null);
        }
        commit(null);
        var out = new StringBuilder();
        write(out, "assign", "\"kind\":\"closing\"");
        flush(out);
        consumer.close();
    }
}
