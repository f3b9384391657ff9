// franz-go on a cluster that is mistreated; see scripts/clients/cluster.
//
//	cluster BOOTSTRAP TOPIC SECONDS RATE HISTORY REPLICAS PARTITIONS IN_SYNC BYTES
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	name = "franz-go"
	// For what is on the way, and for the last reading: a hang, not a measurement.
	patience = 180 * time.Second
)

var (
	ctx        = context.Background()
	bootstrap  []string
	topic      string
	replicas   int
	partitions int
	bytes      int
	inSync     string
	stop       string
	history    *History
)

// Line is one of net/src/history.rs.
type Line struct {
	Op        string `json:"op"`
	Client    string `json:"client"`
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    *int64 `json:"offset,omitempty"`
	Value     string `json:"value,omitempty"`
	Call      int    `json:"call,omitempty"`
	TimeNs    int64  `json:"time_ns"`
}

// History writes what is done and seen, for perf history to judge.
type History struct {
	lock   sync.Mutex
	file   *os.File
	buffer *bufio.Writer
	counts map[string]int
}

func (h *History) write(line Line) {
	line.Topic, line.TimeNs = topic, time.Now().UnixNano()
	text, err := json.Marshal(line)
	must(err)
	h.lock.Lock()
	defer h.lock.Unlock()
	h.counts[line.Op]++
	_, err = h.buffer.Write(append(text, '\n'))
	must(err)
}

func (h *History) close() {
	h.lock.Lock()
	defer h.lock.Unlock()
	must(h.buffer.Flush())
	must(h.file.Close())
}

func must(err error) {
	if err != nil {
		fmt.Printf("FAIL %s: %v\n", name, err)
		os.Exit(1)
	}
}

func complain(what string, err error) {
	fmt.Printf("     %s: %s: %v\n", name, what, err)
}

// insist repeats what the cluster refuses for the moment.
func insist(what string, action func() error) {
	for deadline := time.Now().Add(patience); ; time.Sleep(500 * time.Millisecond) {
		err := action()
		if err == nil {
			return
		}
		complain(what, err)
		if time.Now().After(deadline) {
			must(err)
		}
	}
}

func client(options ...kgo.Opt) *kgo.Client {
	c, err := kgo.NewClient(append(options, kgo.SeedBrokers(bootstrap...))...)
	must(err)
	return c
}

func create() error {
	c := client()
	defer c.Close()
	limit, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	config := map[string]*string{"min.insync.replicas": &inSync}
	_, err := kadm.NewClient(c).CreateTopic(limit, int32(partitions), int16(replicas), config, topic)
	if errors.Is(err, kerr.TopicAlreadyExists) {
		return nil
	}
	return err
}

// neverSent tells whether an error says that a record can never come to be.
func neverSent(err error) bool {
	for _, certain := range []error{kerr.MessageTooLarge, kerr.InvalidTopicException, kgo.ErrMaxBuffered} {
		if errors.Is(err, certain) {
			return true
		}
	}
	return false
}

func produce(seconds, rate float64) {
	made := 0
	var gaveUp atomic.Bool
	var producer string
	var c *kgo.Client
	begun := func() {
		made++
		producer = fmt.Sprintf("%s/producer-%d", name, made)
		gaveUp.Store(false)
		c = client(
			kgo.DefaultProduceTopic(topic), kgo.RequiredAcks(kgo.AllISRAcks()), kgo.RecordPartitioner(kgo.ManualPartitioner()),
			kgo.ProduceRequestTimeout(time.Second), kgo.RequestTimeoutOverhead(time.Second),
			// It asks who leads every 5 s at most, and pauses for up to 2.5 s, if nobody tells it otherwise.
			kgo.MetadataMinAge(100*time.Millisecond), kgo.RetryBackoffFn(func(int) time.Duration { return 100 * time.Millisecond }),
			kgo.ProducerLinger(5*time.Millisecond), kgo.RecordDeliveryTimeout(2*time.Minute), kgo.UnknownTopicRetries(-1),
		)
	}
	begun()
	begin := time.Now()
	for n := 0; ; {
		now := time.Since(begin).Seconds()
		if now >= seconds {
			break
		}
		if _, err := os.Stat(stop); err == nil {
			break
		}
		if float64(n) >= now*rate {
			time.Sleep(time.Millisecond)
			continue
		}
		if gaveUp.Load() {
			// What the old one still has is thrown away, and so stays unknown.
			complain("a new producer", errors.New("the old one gave up"))
			c.Close()
			begun()
		}
		mine, partition, value := producer, int32(n%partitions), fmt.Sprintf("%s-%d", name, n)
		value += strings.Repeat(".", max(0, bytes-len(value)))
		n++
		history.write(Line{Op: "send", Client: mine, Partition: partition, Value: value})
		record := &kgo.Record{Partition: partition, Value: []byte(value)}
		c.TryProduce(ctx, record, func(r *kgo.Record, err error) {
			line := Line{Op: "ack", Client: mine, Partition: partition, Value: value}
			switch {
			case err == nil:
				line.Offset = &r.Offset
			case neverSent(err):
				line.Op = "fail"
			default:
				line.Op = "info"
				if errors.Is(err, kerr.ProducerFenced) || errors.Is(err, kerr.InvalidProducerEpoch) || errors.Is(err, kerr.OutOfOrderSequenceNumber) {
					gaveUp.Store(true)
				}
			}
			history.write(line)
		})
	}
	limit, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := c.Flush(limit); err != nil {
		complain("flush", err)
	}
	c.Close()
}

func reader() *kgo.Client {
	starts := map[int32]kgo.Offset{}
	for p := range int32(partitions) {
		starts[p] = kgo.NewOffset().At(0)
	}
	return client(
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: starts}),
		// What is not there any more is an error, and no reason to begin elsewhere.
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchMaxWait(500*time.Millisecond), kgo.UnknownTopicRetries(-1),
	)
}

var calls atomic.Int64

// take polls once, and notes how far it got.
func take(c *kgo.Client, who string, positions map[int32]int64) {
	limit, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	fetches := c.PollFetches(limit)
	cancel()
	call := int(calls.Add(1))
	fetches.EachError(func(_ string, p int32, err error) {
		if !errors.Is(err, context.DeadlineExceeded) {
			complain(fmt.Sprintf("%s of %d", who, p), err)
		}
	})
	fetches.EachRecord(func(r *kgo.Record) {
		offset := r.Offset
		history.write(Line{Op: "poll", Client: who, Partition: r.Partition, Offset: &offset, Value: string(r.Value), Call: call})
		positions[r.Partition] = offset + 1
	})
}

func tail(stopping *atomic.Bool) {
	c := reader()
	defer c.Close()
	for positions := map[int32]int64{}; !stopping.Load(); {
		take(c, name+"/tail", positions)
	}
}

var tries int

// final reads everything from the beginning, with a fresh client.
func final() error {
	tries++
	who := fmt.Sprintf("%s/final-%d", name, tries)
	c := reader()
	defer c.Close()
	limit, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	listed, err := kadm.NewClient(c).ListEndOffsets(limit, topic)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return err
	}
	behind, positions := map[int32]int64{}, map[int32]int64{}
	listed.Each(func(o kadm.ListedOffset) { behind[o.Partition] = o.Offset })
	if len(behind) != partitions {
		return fmt.Errorf("ends of %d partitions", len(behind))
	}
	for deadline := time.Now().Add(patience); len(behind) > 0; {
		if time.Now().After(deadline) {
			return fmt.Errorf("%d partitions are not read to the end", len(behind))
		}
		take(c, who, positions)
		for p, end := range behind {
			if at := positions[p]; at >= end {
				history.write(Line{Op: "end", Client: who, Partition: p, Offset: &at})
				delete(behind, p)
			}
		}
	}
	return nil
}

func main() {
	bootstrap, topic = strings.Split(os.Args[1], ","), os.Args[2]
	number := func(i int) float64 {
		value, err := strconv.ParseFloat(os.Args[i], 64)
		must(err)
		return value
	}
	replicas, partitions, bytes = int(number(6)), int(number(7)), int(number(9))
	inSync, stop = os.Args[8], os.Args[5]+".stop"
	file, err := os.Create(os.Args[5])
	must(err)
	history = &History{file: file, buffer: bufio.NewWriter(file), counts: map[string]int{}}

	insist("creating the topic", create)
	var stopping atomic.Bool
	tailed := make(chan struct{})
	go func() {
		tail(&stopping)
		close(tailed)
	}()
	produce(number(3), number(4))
	time.Sleep(time.Second)
	stopping.Store(true)
	<-tailed
	insist("reading everything", final)
	history.close()
	c := history.counts
	fmt.Printf("ok   %s: %d send, %d ack, %d fail, %d info, %d poll\n", name, c["send"], c["ack"], c["fail"], c["info"], c["poll"])
}
