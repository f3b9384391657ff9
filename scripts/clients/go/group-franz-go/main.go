// A member of a group: franz-go; see group_member.py.
package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ringbolt/clients/member"
)

var (
	notes = member.Start()
	ctx   = context.Background()
	// Processed and not committed yet. Polls block rebalances, so that nothing runs beside anything.
	pending = map[int32]kgo.EpochOffset{}
)

// commit commits what is pending of these partitions (nil: all); what is refused stays pending.
func commit(c *kgo.Client, partitions []int32) {
	offsets := map[int32]kgo.EpochOffset{}
	for p, o := range pending {
		if partitions == nil || slices.Contains(partitions, p) {
			offsets[p] = o
		}
	}
	if len(offsets) == 0 {
		return
	}
	asked := map[string]map[int32]kgo.EpochOffset{notes.Topic: offsets}
	c.CommitOffsetsSync(ctx, asked, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, answer *kmsg.OffsetCommitResponse, err error) {
		if err != nil {
			notes.Complain("commit", err)
			return
		}
		for _, topic := range answer.Topics {
			for _, p := range topic.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					notes.Complain("commit", err)
					continue
				}
				notes.Committed(p.Partition, offsets[p.Partition].Offset)
				delete(pending, p.Partition)
			}
		}
	})
}

func generation(c *kgo.Client) int32 {
	_, generation := c.GroupMetadata()
	return generation
}

func leave(kind string) func(context.Context, *kgo.Client, map[string][]int32) {
	return func(_ context.Context, c *kgo.Client, gone map[string][]int32) {
		partitions := gone[notes.Topic]
		if kind == "revoked" && len(partitions) > 0 {
			commit(c, partitions)
		}
		for _, p := range partitions {
			delete(pending, p)
		}
		notes.Moved(kind, partitions, generation(c))
	}
}

func main() {
	options := []kgo.Opt{
		kgo.SeedBrokers(strings.Split(notes.Bootstrap, ",")...), kgo.ClientID(notes.Name),
		kgo.ConsumerGroup(notes.Group), kgo.ConsumeTopics(notes.Topic),
		kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.SessionTimeout(member.Session), kgo.HeartbeatInterval(member.Heartbeat),
		kgo.OnPartitionsAssigned(func(_ context.Context, c *kgo.Client, assigned map[string][]int32) {
			notes.Moved("assigned", assigned[notes.Topic], generation(c))
		}),
		kgo.OnPartitionsRevoked(leave("revoked")), kgo.OnPartitionsLost(leave("lost")),
	}
	if notes.Protocol == "consumer" {
		options = append(options, kgo.ServerSideBalancer(), kgo.Balancers(kgo.StickyBalancer()))
	} else if notes.Assignor != "" {
		options = append(options, kgo.Balancers(map[string]kgo.GroupBalancer{
			"range": kgo.RangeBalancer(), "roundrobin": kgo.RoundRobinBalancer(),
			"cooperative-sticky": kgo.CooperativeStickyBalancer(),
		}[notes.Assignor]))
	}
	if notes.Instance != "" {
		options = append(options, kgo.InstanceID(notes.Instance))
	}
	c, err := kgo.NewClient(options...)
	notes.Must("client", err)
	for call := 1; ; call++ {
		select {
		case <-notes.Stopping:
			commit(c, nil)
			notes.Closing()
			c.CloseAllowingRebalance()
			return
		default:
		}
		limit, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		fetches := c.PollRecords(limit, member.Batch)
		cancel()
		fetches.EachError(func(_ string, _ int32, err error) {
			if !errors.Is(err, context.DeadlineExceeded) {
				notes.Complain("poll", err)
			}
		})
		fetches.EachRecord(func(r *kgo.Record) {
			notes.Polled(r.Partition, r.Offset, r.Key, r.Value, call)
			pending[r.Partition] = kgo.EpochOffset{Epoch: r.LeaderEpoch, Offset: r.Offset + 1}
		})
		if fetches.NumRecords() > 0 {
			time.Sleep(member.Work)
		}
		commit(c, nil)
		c.AllowRebalance()
	}
}
