// Package member is what the Go members of scripts/clients/group have in common: arguments, the history, and when to stop;
// see group_member.py.
package member

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"
)

const (
	Session   = 6 * time.Second
	Heartbeat = 500 * time.Millisecond
	Batch     = 50
	Work      = 10 * time.Millisecond
)

// line is one of net/src/history.rs, with a few fields that only group_judge.py reads.
type line struct {
	Op         string `json:"op"`
	Client     string `json:"client"`
	Topic      string `json:"topic,omitempty"`
	Partition  *int32 `json:"partition,omitempty"`
	Offset     *int64 `json:"offset,omitempty"`
	Key        string `json:"key,omitempty"`
	Value      string `json:"value,omitempty"`
	Call       int    `json:"call,omitempty"`
	Group      string `json:"group,omitempty"`
	Kind       string `json:"kind,omitempty"`
	Generation *int32 `json:"generation,omitempty"`
	TimeNs     int64  `json:"time_ns"`
}

// Notes are of one member; it may be used from several goroutines.
type Notes struct {
	Bootstrap, Topic, Group, Name string
	Protocol, Assignor, Instance  string // "" for what is not given
	// Stopping is closed when standard input ends.
	Stopping chan struct{}

	lock sync.Mutex
	file *os.File
}

// Start reads the arguments BOOTSTRAP TOPIC GROUP NAME HISTORY PROTOCOL ASSIGNOR INSTANCE.
func Start() *Notes {
	a := slices.Clone(os.Args)
	for i := range a {
		if a[i] == "-" {
			a[i] = ""
		}
	}
	n := &Notes{
		Bootstrap: a[1], Topic: a[2], Group: a[3], Name: a[4], Protocol: a[6], Assignor: a[7], Instance: a[8],
		Stopping: make(chan struct{}),
	}
	var err error
	n.file, err = os.OpenFile(a[5], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	n.Must("history", err)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(n.Stopping)
	}()
	return n
}

// Must ends the process if there is an error.
func (n *Notes) Must(what string, err error) {
	if err != nil {
		fmt.Printf("FAIL %s: %s: %v\n", n.Name, what, err)
		os.Exit(1)
	}
}

// Complain tells of an error that the member lives with.
func (n *Notes) Complain(what string, err error) {
	fmt.Printf("     %s: %s: %v\n", n.Name, what, err)
}

func (n *Notes) write(l line) {
	n.lock.Lock()
	defer n.lock.Unlock()
	l.Client, l.TimeNs = n.Name, time.Now().UnixNano()
	text, err := json.Marshal(l)
	n.Must("history", err)
	_, err = n.file.Write(append(text, '\n'))
	n.Must("history", err)
}

// Polled notes a record; call is a number for what came together.
func (n *Notes) Polled(partition int32, offset int64, key, value []byte, call int) {
	n.write(line{Op: "poll", Topic: n.Topic, Partition: &partition, Offset: &offset, Key: string(key), Value: string(value), Call: call})
}

// Moved notes what was assigned, revoked or lost.
func (n *Notes) Moved(kind string, partitions []int32, generation int32) {
	for _, p := range slices.Sorted(slices.Values(partitions)) {
		n.write(line{Op: "assign", Topic: n.Topic, Partition: &p, Kind: kind, Generation: &generation})
	}
}

// Committed notes what the coordinator has taken.
func (n *Notes) Committed(partition int32, offset int64) {
	n.write(line{Op: "commit", Topic: n.Topic, Partition: &partition, Offset: &offset, Group: n.Group})
}

// Closing notes that nothing more is read.
func (n *Notes) Closing() {
	n.write(line{Op: "assign", Kind: "closing"})
}
