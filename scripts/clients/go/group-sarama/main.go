// A member of a group: sarama; see group_member.py. Its commits tell nobody how they went, so there are no "commit" lines.
package main

import (
	"context"
	"strings"
	"time"

	"github.com/IBM/sarama"

	"ringbolt/clients/member"
)

var notes = member.Start()

// part is the handler of claims: each partition has a goroutine, and all end before Cleanup.
type part struct{}

func (part) Setup(session sarama.ConsumerGroupSession) error {
	notes.Moved("assigned", session.Claims()[notes.Topic], session.GenerationID())
	return nil
}

func (part) Cleanup(session sarama.ConsumerGroupSession) error {
	notes.Moved("revoked", session.Claims()[notes.Topic], session.GenerationID())
	return nil
}

func (part) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for call := 1; ; call++ {
		select {
		case m, open := <-claim.Messages():
			if !open {
				return nil
			}
			last := m
			for count := 1; ; count++ {
				notes.Polled(last.Partition, last.Offset, last.Key, last.Value, call)
				if count == member.Batch || len(claim.Messages()) == 0 {
					break
				}
				next, open := <-claim.Messages()
				if !open {
					break
				}
				last = next
			}
			time.Sleep(member.Work)
			session.MarkMessage(last, "")
			session.Commit()
		case <-session.Context().Done():
			return nil
		}
	}
}

func main() {
	config := sarama.NewConfig()
	config.ClientID = notes.Name
	config.Version = sarama.V2_8_0_0
	config.Consumer.Group.Session.Timeout = member.Session
	config.Consumer.Group.Heartbeat.Interval = member.Heartbeat
	config.Consumer.Group.InstanceId = notes.Instance
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Offsets.AutoCommit.Enable = false
	config.Consumer.Return.Errors = true
	if notes.Assignor != "" {
		config.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{map[string]sarama.BalanceStrategy{
			"range": sarama.NewBalanceStrategyRange(), "roundrobin": sarama.NewBalanceStrategyRoundRobin(),
			"sticky": sarama.NewBalanceStrategySticky(),
		}[notes.Assignor]}
	}
	group, err := sarama.NewConsumerGroup(strings.Split(notes.Bootstrap, ","), notes.Group, config)
	notes.Must("group", err)
	go func() {
		for err := range group.Errors() {
			notes.Complain("group", err)
		}
	}()
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		<-notes.Stopping
		stop()
	}()
	for ctx.Err() == nil {
		// It returns at every rebalance.
		if err := group.Consume(ctx, []string{notes.Topic}, part{}); err != nil {
			notes.Complain("consume", err)
			time.Sleep(100 * time.Millisecond)
		}
	}
	notes.Closing()
	notes.Must("close", group.Close())
}
