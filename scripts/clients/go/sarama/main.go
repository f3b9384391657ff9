// sarama: creates, produces and reads back by assignment, at its default protocol level (Kafka 2.8).
//
//	sarama BOOTSTRAP TOPIC BASE OUT
package main

import (
	"fmt"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"ringbolt/clients/record"
)

var suite = record.Start("sarama")

func produce(run record.Run, reports *record.File) {
	config := sarama.NewConfig()
	config.Producer.Compression = map[string]sarama.CompressionCodec{
		"none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP, "snappy": sarama.CompressionSnappy,
		"lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD,
	}[run.Codec]
	config.Producer.RequiredAcks = map[string]sarama.RequiredAcks{"all": sarama.WaitForAll, "1": sarama.WaitForLocal, "0": sarama.NoResponse}[run.Acks]
	config.Producer.Idempotent = run.Idempotent
	config.Producer.Return.Successes = true
	config.Producer.Flush.Frequency = 5 * time.Millisecond
	// One request in flight: sarama's idempotence demands it, and without idempotence it is what keeps the order.
	config.Net.MaxOpenRequests = 1
	producer, err := sarama.NewAsyncProducer([]string{suite.Bootstrap}, config)
	suite.Must("connect", err)

	// Closing comes after the last answer: a retry that finds the producer closing is given up.
	var answers, closed sync.WaitGroup
	answers.Add(run.Count)
	closed.Go(func() {
		for m := range producer.Successes() {
			answers.Done()
			if run.Acks != "0" {
				fmt.Fprintf(reports, "%d\t%d\t%d\n", m.Metadata.(int), m.Partition, m.Offset)
			}
		}
	})
	closed.Go(func() {
		for err := range producer.Errors() {
			suite.Must(fmt.Sprintf("produce %s, n=%d", run.Name, err.Msg.Metadata), err.Err)
		}
	})
	for i := range run.Count {
		n := run.First + i
		key, value, headers := suite.Record(run.Name, i)
		m := &sarama.ProducerMessage{Topic: suite.Topic, Timestamp: time.UnixMilli(suite.Base + int64(n)), Metadata: n}
		// An Encoder that holds a nil slice is an empty value; null is no Encoder at all.
		if key != nil {
			m.Key = sarama.ByteEncoder(key)
		}
		if value != nil {
			m.Value = sarama.ByteEncoder(value)
		}
		for _, h := range headers {
			m.Headers = append(m.Headers, sarama.RecordHeader{Key: []byte(h.Name), Value: h.Value})
		}
		producer.Input() <- m
	}
	answers.Wait()
	producer.AsyncClose()
	closed.Wait()
	suite.Produced(run)
}

// consume reads from starts until count records are in, and returns the end of each partition.
func consume(client sarama.Client, name string, starts map[int32]int64, count int) map[int32]int64 {
	consumer, err := sarama.NewConsumerFromClient(client)
	suite.Must("consumer", err)
	file := suite.File(name)
	defer file.Close()
	messages, failures := make(chan *sarama.ConsumerMessage, 1024), make(chan error, 16)
	var partitions []sarama.PartitionConsumer
	for p, offset := range starts {
		partition, err := consumer.ConsumePartition(suite.Topic, p, offset)
		suite.Must(fmt.Sprintf("read %d at %d", p, offset), err)
		partitions = append(partitions, partition)
		go func() {
			for m := range partition.Messages() {
				messages <- m
			}
		}()
		go func() {
			for err := range partition.Errors() {
				failures <- err
			}
		}()
	}
	ends, seen := map[int32]int64{}, 0
	deadline := time.After(time.Minute)
	for quiet := false; !quiet; {
		// Half a second more after the last: whatever comes then is one too many, and shows.
		var last <-chan time.Time
		if seen >= count {
			last = time.After(500 * time.Millisecond)
		}
		select {
		case m := <-messages:
			headers := make([]record.Header, len(m.Headers))
			for i, h := range m.Headers {
				headers[i] = record.Header{Name: string(h.Key), Value: h.Value}
			}
			file.Dump(m.Partition, m.Offset, m.Timestamp.UnixMilli(), m.Key, m.Value, headers)
			ends[m.Partition] = m.Offset + 1
			seen++
		case err := <-failures:
			suite.Must("read "+name, err)
		case <-last:
			quiet = true
		case <-deadline:
			quiet = true
		}
	}
	for _, partition := range partitions {
		partition.AsyncClose()
	}
	if seen != count {
		suite.Must("read "+name, fmt.Errorf("%d of %d records", seen, count))
	}
	suite.Ok("read %d records from %s", seen, name)
	return ends
}

func main() {
	config := sarama.NewConfig()
	config.Consumer.Return.Errors = true
	client, err := sarama.NewClient([]string{suite.Bootstrap}, config)
	suite.Must("connect", err)
	admin, err := sarama.NewClusterAdminFromClient(client)
	suite.Must("admin", err)
	suite.Must("create topic", admin.CreateTopic(suite.Topic, &sarama.TopicDetail{NumPartitions: record.Partitions, ReplicationFactor: 1}, false))
	for found := 0; found != record.Partitions; {
		topics, err := admin.DescribeTopics([]string{suite.Topic})
		suite.Must("describe topic", err)
		found = len(topics[0].Partitions)
	}
	suite.Ok("created %s", suite.Topic)

	reports := suite.File("reports")
	for _, run := range suite.Runs {
		produce(run, reports)
	}
	reports.Close()

	beginning := map[int32]int64{}
	for p := range int32(record.Partitions) {
		beginning[p] = sarama.OffsetOldest
	}
	ends := consume(client, "earliest", beginning, suite.Total)
	known, later := map[int32]int64{}, map[int32]int64{}
	for p := range ends {
		known[p], err = client.GetOffset(suite.Topic, p, sarama.OffsetNewest)
		suite.Must("end offset", err)
		later[p], err = client.GetOffset(suite.Topic, p, suite.When())
		suite.Must("offset of a timestamp", err)
	}
	middle := record.Middle(ends)
	suite.Starts(known, middle, later)
	for name, offsets := range map[string]map[int32]int64{"offset": middle, "timestamp": later} {
		count := 0
		for p, offset := range offsets {
			count += int(ends[p] - offset)
		}
		consume(client, name, offsets, count)
	}
}
