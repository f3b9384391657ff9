// franz-go: creates, produces and reads back by assignment; the client that speaks topic IDs and the newest versions.
//
//	franz-go BOOTSTRAP TOPIC BASE OUT
package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"ringbolt/clients/record"
)

var (
	suite = record.Start("franz-go")
	ctx   = context.Background()
)

func client(options ...kgo.Opt) *kgo.Client {
	c, err := kgo.NewClient(append(options, kgo.SeedBrokers(suite.Bootstrap))...)
	suite.Must("connect", err)
	return c
}

func produce(run record.Run, reports *record.File) {
	codec := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}[run.Codec]
	acks := map[string]kgo.Acks{"all": kgo.AllISRAcks(), "1": kgo.LeaderAck(), "0": kgo.NoAck()}[run.Acks]
	options := []kgo.Opt{
		kgo.DefaultProduceTopic(suite.Topic), kgo.ProducerBatchCompression(codec), kgo.RequiredAcks(acks),
		kgo.ProducerLinger(5 * time.Millisecond),
	}
	if !run.Idempotent {
		options = append(options, kgo.DisableIdempotentWrite())
	}
	c := client(options...)
	defer c.Close()

	var lock sync.Mutex
	for i := range run.Count {
		n := run.First + i
		key, value, headers := suite.Record(run.Name, i)
		r := &kgo.Record{Key: key, Value: value, Timestamp: time.UnixMilli(suite.Base + int64(n))}
		for _, h := range headers {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: h.Name, Value: h.Value})
		}
		c.Produce(ctx, r, func(r *kgo.Record, err error) {
			suite.Must(fmt.Sprintf("produce %s %d", run.Name, i), err)
			if run.Acks != "0" {
				lock.Lock()
				defer lock.Unlock()
				fmt.Fprintf(reports, "%d\t%d\t%d\n", n, r.Partition, r.Offset)
			}
		})
	}
	limit, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	suite.Must("flush "+run.Name, c.Flush(limit))
	suite.Produced(run)
}

// consume reads from starts until count records are in, and returns the end of each partition.
func consume(name string, starts map[int32]kgo.Offset, count int) map[int32]int64 {
	c := client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{suite.Topic: starts}))
	defer c.Close()
	file := suite.File(name)
	defer file.Close()
	ends, seen := map[int32]int64{}, 0
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		limit, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		fetches := c.PollFetches(limit)
		cancel()
		// One more poll after the last: whatever comes then is one too many, and shows.
		if seen >= count && fetches.NumRecords() == 0 {
			break
		}
		fetches.EachError(func(_ string, p int32, err error) {
			if err != context.DeadlineExceeded {
				suite.Must(fmt.Sprintf("read %s of %d", name, p), err)
			}
		})
		fetches.EachRecord(func(r *kgo.Record) {
			headers := make([]record.Header, len(r.Headers))
			for i, h := range r.Headers {
				headers[i] = record.Header{Name: h.Key, Value: h.Value}
			}
			file.Dump(r.Partition, r.Offset, r.Timestamp.UnixMilli(), r.Key, r.Value, headers)
			ends[r.Partition] = r.Offset + 1
			seen++
		})
	}
	if seen != count {
		suite.Must("read "+name, fmt.Errorf("%d of %d records", seen, count))
	}
	suite.Ok("read %d records from %s", seen, name)
	return ends
}

func main() {
	admin := kadm.NewClient(client())
	_, err := admin.CreateTopic(ctx, record.Partitions, 1, nil, suite.Topic)
	suite.Must("create topic", err)
	for found := 0; found != record.Partitions; {
		topics, err := admin.ListTopics(ctx, suite.Topic)
		suite.Must("list topics", err)
		found = len(topics[suite.Topic].Partitions)
	}
	suite.Ok("created %s", suite.Topic)

	reports := suite.File("reports")
	for _, run := range suite.Runs {
		produce(run, reports)
	}
	reports.Close()

	beginning := map[int32]kgo.Offset{}
	for p := range int32(record.Partitions) {
		beginning[p] = kgo.NewOffset().AtStart()
	}
	ends := consume("earliest", beginning, suite.Total)

	known, later := map[int32]int64{}, map[int32]int64{}
	listed, err := admin.ListEndOffsets(ctx, suite.Topic)
	suite.Must("end offsets", err)
	listed.Each(func(o kadm.ListedOffset) { known[o.Partition] = o.Offset })
	listed, err = admin.ListOffsetsAfterMilli(ctx, suite.When(), suite.Topic)
	suite.Must("offsets after", err)
	listed.Each(func(o kadm.ListedOffset) { later[o.Partition] = o.Offset })
	middle := record.Middle(ends)
	suite.Starts(known, middle, later)

	for name, offsets := range map[string]map[int32]int64{"offset": middle, "timestamp": later} {
		starts, count := map[int32]kgo.Offset{}, 0
		for p, offset := range offsets {
			starts[p] = kgo.NewOffset().At(offset)
			if name == "timestamp" {
				starts[p] = kgo.NewOffset().AfterMilli(suite.When())
			}
			count += int(ends[p] - offset)
		}
		consume(name, starts, count)
	}
}
