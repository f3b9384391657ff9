// Package record is the rule of scripts/clients/record.py for the clients in Go, and the files that the suites leave
// for the verifier.
package record

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"strings"
)

const Partitions = 6

var large = strings.Repeat("abcdefghijklmnopqrstuvwxyz", 1154)

// Header is a name with a value, which may be nil.
type Header struct {
	Name  string
	Value []byte
}

// Run is one line of the plan.
type Run struct {
	Name, Codec, Acks string
	Idempotent        bool
	Count, First      int
}

// Suite is what every suite gets on its command line: BOOTSTRAP TOPIC BASE OUT.
type Suite struct {
	Client, Bootstrap, Topic, out string
	Base                          int64
	Runs                          []Run
	Total                         int
}

func Start(client string) *Suite {
	s := &Suite{Client: client, Bootstrap: os.Args[1], Topic: os.Args[2], out: os.Args[4]}
	s.Base = int64(number(os.Args[3]))
	plan, err := os.ReadFile(s.out + "/plan.tsv")
	s.Must("plan", err)
	for _, line := range strings.Split(strings.TrimSpace(string(plan)), "\n") {
		f := strings.Split(line, "\t")
		run := Run{f[0], f[1], f[2], f[3] == "1", number(f[4]), number(f[5])}
		s.Runs = append(s.Runs, run)
		s.Total += run.Count
	}
	return s
}

func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		panic(err)
	}
	return n
}

// Must ends the suite with one line when err is not nil.
func (s *Suite) Must(doing string, err error) {
	if err != nil {
		fmt.Printf("FAIL %s: %s: %v\n", s.Client, doing, err)
		os.Exit(1)
	}
}

func (s *Suite) Ok(format string, args ...any) {
	fmt.Printf("ok   %s: %s\n", s.Client, fmt.Sprintf(format, args...))
}

func (s *Suite) Produced(run Run) {
	idempotent := ""
	if run.Idempotent {
		idempotent = ", idempotent"
	}
	s.Ok("produced %d with %s, acks=%s%s", run.Count, run.Codec, run.Acks, idempotent)
}

// When is the timestamp that the last read begins at.
func (s *Suite) When() int64 { return s.Base + int64(s.Total)*5/6 }

// Record is the rule, with the full headers.
func (s *Suite) Record(run string, i int) (key, value []byte, headers []Header) {
	nothing := i%1000 == 999
	if i%3 == 0 || nothing {
		headers = []Header{{"i", []byte(strconv.Itoa(i))}, {"run", []byte(run)}}
		if i%15 == 0 {
			headers = append(headers, Header{"dup", []byte("a")}, Header{"dup", []byte("b")}, Header{"void", nil}, Header{"empty", []byte{}})
		}
	}
	if nothing {
		return nil, nil, headers
	}
	if i%41 == 11 {
		return fmt.Appendf(nil, "gone-%s-%d", run, i), nil, headers
	}
	if i%50 != 7 {
		key = fmt.Appendf(nil, "key-%d", i%97)
	}
	length := i * 7 % 180
	if i%2000 == 1999 {
		length = 30_000
	}
	return key, fmt.Appendf(nil, "%s/%s/%d/%s", s.Client, run, i, large[:length]), headers
}

// File is one of the files for the verifier.
type File struct {
	suite *Suite
	name  string
	file  *os.File
	*bufio.Writer
}

func (s *Suite) File(name string) *File {
	file, err := os.Create(s.out + "/" + name + ".tsv")
	s.Must(name, err)
	return &File{s, name, file, bufio.NewWriter(file)}
}

func (f *File) Close() {
	f.suite.Must(f.name, f.Flush())
	f.suite.Must(f.name, f.file.Close())
}

func (f *File) Dump(partition int32, offset, timestamp int64, key, value []byte, headers []Header) {
	names := make([]string, len(headers))
	for i, h := range headers {
		names[i] = h.Name + "=" + text(h.Value)
	}
	fmt.Fprintf(f, "%d\t%d\t%d\t%s\t%s\t%s\n", partition, offset, timestamp, text(key), text(value), strings.Join(names, ","))
}

func text(data []byte) string {
	if data == nil {
		return "~"
	}
	return hex.EncodeToString(data)
}

// Starts writes where the later reads begin, and the ends as the client knows them.
func (s *Suite) Starts(known, middle, later map[int32]int64) {
	f := s.File("starts")
	fmt.Fprintf(f, "time\t0\t%d\n", s.When())
	for kind, offsets := range map[string]map[int32]int64{"end": known, "offset": middle, "timestamp": later} {
		for p, offset := range offsets {
			fmt.Fprintf(f, "%s\t%d\t%d\n", kind, p, offset)
		}
	}
	f.Close()
}

// Middle is where the read from an offset begins: after three quarters of each partition.
func Middle(ends map[int32]int64) map[int32]int64 {
	middle := map[int32]int64{}
	for p, end := range ends {
		middle[p] = end * 3 / 4
	}
	return middle
}
