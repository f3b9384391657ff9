//! The checker on small histories: each anomaly, and its absence.

use super::*;

/// A history in few words: an operation a line, `op client partition value offset #call`; values
/// are words, `*` stands for an unknown partition, `>n` for an offset where there is no value.
fn told(text: &str) -> History {
    let mut history = History::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        history.push(&event(line)).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
    history
}

fn event(line: &str) -> Event<'_> {
    let mut words = line.split_whitespace();
    let op = match words.next().expect("an operation") {
        "send" => Op::Send,
        "ack" => Op::Ack,
        "fail" => Op::Fail,
        "info" => Op::Info,
        "poll" => Op::Poll,
        "assign" => Op::Assign,
        "end" => Op::End,
        "watermark" => Op::Watermark,
        "commit" => Op::Commit,
        "committed" => Op::Committed,
        other => panic!("{other}"),
    };
    let mut event = Event { topic: "t".into(), ..Event::new(op) };
    let name = words.next().expect("who");
    if matches!(op, Op::Commit | Op::Committed) {
        event.group = name.into();
    } else {
        event.client = name.into();
    }
    for word in words {
        if let Some(call) = word.strip_prefix('#') {
            event.call = call.parse().expect("a number");
        } else if let Some(time) = word.strip_prefix('@') {
            event.time_ns = time.parse().expect("a number");
        } else if let Some(offset) = word.strip_prefix('>') {
            event.offset = offset.parse().expect("a number");
        } else if let Some(partition) = word.strip_prefix("p=") {
            event.partition = partition.parse().expect("a number");
        } else {
            event.value = word.into();
        }
    }
    event
}

/// The anomalies of a history, by name, with their numbers.
fn anomalies(text: &str) -> Vec<(&'static str, u64)> {
    let report = told(text).judge();
    assert_eq!(report, told(text).judge(), "the same history, the same report");
    report.anomalies().map(|(anomaly, found)| (anomaly.name(), found.count)).collect()
}

#[test]
fn a_history_without_fault_is_clean() {
    let text = "
        send a p=0 x
        send a p=0 y
        ack a p=0 x >0
        ack a p=0 y >2
        send a p=1 x
        ack a p=1 x >0
        send a p=0 gone
        fail a p=0 gone
        send a p=0 maybe
        info a p=0 maybe
        poll b p=0 x >0
        poll b p=0 y >2
        poll b p=0 maybe >3
        poll b p=1 x >0
        end b p=0 >4
        end b p=1 >1";
    let report = told(text).judge();
    assert!(report.is_clean(), "{report}");
    let counts = Counts {
        partitions: 2,
        sent: 5,
        acked: 3,
        failed: 1,
        polled: 4,
        read: 4,
        read_again: 0,
        read_to_end: 2,
        torn: 0,
    };
    assert_eq!(report.counts, counts);
    assert_eq!(
        report.to_string(),
        "ok   history: 5 sent, 3 acked, 1 failed, 1 unknown; 4 polled, 4 different, 0 again; \
         2 of 2 partitions read to the end"
    );
    assert!(History::new().judge().is_clean());
}

#[test]
fn two_values_at_one_offset() {
    let reads = |second: &str| anomalies(&format!("poll a p=0 x >3 \n poll b p=0 {second} >3"));
    assert_eq!(reads("y"), [("inconsistent-offsets", 1)]);
    assert_eq!(reads("x"), []);
    // What was acknowledged there counts as well as what was read.
    let text = "send a p=0 x\n ack a p=0 x >3\n send a p=0 y\n poll b p=0 y >3";
    let found = anomalies(text);
    assert!(found.contains(&("inconsistent-offsets", 1)), "{found:?}");
}

#[test]
fn one_value_at_two_offsets() {
    let reads = |second: &str| anomalies(&format!("poll a p=0 x >3 \n poll b p=0 {second}"));
    assert_eq!(reads("x >4"), [("duplicate", 1)]);
    assert_eq!(reads("x >3"), []);
    assert_eq!(reads("y >4"), []);
    // Acknowledged in one place and read at another.
    let text = "send a p=0 x\n ack a p=0 x >3\n poll b p=0 x >4\n end b p=0 >5";
    assert_eq!(anomalies(text), [("duplicate", 1)]);
    // Values are unique per partition only …
    assert_eq!(anomalies("send a p=0 x\n send a p=1 x\n poll b p=0 x >0\n poll b p=1 x >0"), []);
    // … unless they were sent without saying where.
    let text = "send a x\n poll b p=0 x >0\n poll b p=1 x >0";
    assert_eq!(anomalies(text), [("duplicate", 1)]);
}

#[test]
fn a_refused_write_that_is_read() {
    let text = |answer: &str| format!("send a p=0 x\n {answer}\n poll b p=0 x >0");
    assert_eq!(anomalies(&text("fail a p=0 x")), [("G1a", 1)]);
    assert_eq!(anomalies(&text("info a p=0 x")), []);
    assert_eq!(anomalies(&text("")), []);
    assert_eq!(anomalies("send a x\n fail a x\n poll b p=2 x >0"), [("G1a", 1)]);
}

#[test]
fn a_value_that_nobody_sent() {
    assert_eq!(anomalies("send a p=0 x\n poll b p=1 y >0"), [("unwritten-read", 1)]);
    // Where nobody is known to send, nothing can be said.
    assert_eq!(anomalies("poll b p=1 y >0"), []);
}

#[test]
fn an_acknowledged_value_before_one_that_was_read() {
    let text = |answer: &str, read: &str| {
        anomalies(&format!(
            "send a p=0 x\n {answer}\n send a p=0 y\n ack a p=0 y >4\n {read}\n poll b p=0 y >4
             assign b\n end c p=1 >0"
        ))
    };
    let unread = ("not-read-to-the-end", 1);
    assert_eq!(text("ack a p=0 x >3", ""), [("lost-write", 1), unread]);
    assert_eq!(text("ack a p=0 x >3", "poll b p=0 x >3"), [unread]);
    assert_eq!(text("info a p=0 x", ""), [unread]);
    // Behind what was read, it may still come.
    assert_eq!(text("ack a p=0 x >5", ""), [unread, ("nonmonotonic-send", 1)]);
}

#[test]
fn how_far_was_read_is_the_furthest_first_place_of_what_was_read() {
    let unread = ("not-read-to-the-end", 1);
    // The last of several reads counts.
    let text = "send a p=0 u\n send a p=0 x\n ack a p=0 x >3\n send a p=0 y\n poll b p=0 u >0";
    assert_eq!(anomalies(text), [unread]);
    let found = anomalies(&format!("{text}\n assign b\n poll b p=0 y >4"));
    assert_eq!(found, [("lost-write", 1), unread]);
    // Another value in its place is as good as one behind it.
    let text = "send a p=0 x\n ack a p=0 x >3\n send c p=0 y\n poll b p=0 y >3";
    assert_eq!(anomalies(text), [("inconsistent-offsets", 1), ("lost-write", 1), unread]);
    // A value at two places says no more than that the first of them was read.
    let text = "send a p=0 u\n send a p=0 x\n ack a p=0 x >3\n poll b p=0 u >0\n poll c p=0 u >5";
    assert_eq!(anomalies(text), [("duplicate", 1), unread]);
    // Its place in another partition says nothing about this one.
    let text = "send a p=0 x\n ack a p=0 x >3\n send a p=0 y\n ack a p=0 y >4\n send a u
        poll b p=0 u >5\n poll b p=1 u >0";
    assert_eq!(anomalies(text), [("duplicate", 1), ("lost-write", 2), unread]);
}

#[test]
fn an_acknowledged_value_that_the_last_reader_does_not_get() {
    let text = |answer: &str, read: &str| {
        anomalies(&format!("send a p=0 x\n {answer}\n {read}\n end b p=0 >9"))
    };
    assert_eq!(text("ack a p=0 x >3", ""), [("unseen", 1)]);
    assert_eq!(text("ack a p=0 x >3", "poll b p=0 x >3"), []);
    assert_eq!(text("info a p=0 x", ""), []);
    assert_eq!(text("fail a p=0 x", ""), []);
    // An acknowledgement that tells no offset is one.
    assert_eq!(text("ack a p=0 x", ""), [("unseen", 1)]);
    // Another reader had got it.
    let found = text("ack a p=0 x >3", "poll c p=0 x >3");
    assert_eq!(found, [("unseen", 1), ("vanished-read", 1)]);
    // Not acknowledged, but read, and then gone.
    assert_eq!(text("info a p=0 x", "poll c p=0 x >3"), [("vanished-read", 1)]);
    assert_eq!(text("fail a p=0 x", "poll c p=0 x >3"), [("G1a", 1)]);
    // Sent without saying where; the acknowledgement says it.
    assert_eq!(anomalies("send a x\n ack a p=2 x >3\n end b p=2 >9"), [("unseen", 1)]);
}

#[test]
fn what_nobody_read_to_the_end_is_not_taken_for_read() {
    let text = "send a p=0 x\n ack a p=0 x >3\n send a p=0 y\n ack a p=0 y >4\n poll b p=0 x >3";
    assert_eq!(anomalies(text), [("not-read-to-the-end", 1)]);
    assert_eq!(anomalies(&format!("{text}\n poll b p=0 y >4\n end b p=0 >5")), []);
    assert_eq!(anomalies("send a p=0 x\n info a p=0 x"), []);
}

#[test]
fn a_reader_that_leaves_out_or_goes_back() {
    let log = "poll z p=0 u >0\n poll z p=0 v >5\n poll z p=0 w >6\n poll z p=0 x >9";
    let reads = |more: &str| anomalies(&format!("{log}\n{more}"));
    assert_eq!(reads("poll b p=0 v >5\n poll b p=0 w >6"), []);
    assert_eq!(reads("poll b p=0 u >0\n poll b p=0 w >6"), [("poll-skip", 1)]);
    assert_eq!(reads("poll b p=0 w >6\n poll b p=0 v >5"), [("nonmonotonic-poll", 1)]);
    assert_eq!(reads("poll b p=0 w >6\n poll b p=0 w >6"), [("nonmonotonic-poll", 1)]);
    assert_eq!(reads("poll b p=0 u >0 #1\n poll b p=0 w >6 #1"), [("int-poll-skip", 1)]);
    let found = reads("poll b p=0 w >6 #1\n poll b p=0 v >5 #1");
    assert_eq!(found, [("int-nonmonotonic-poll", 1)]);
    assert_eq!(reads("poll b p=0 u >0 #1\n poll b p=0 w >6 #2"), [("poll-skip", 1)]);
    // Each reader and each partition for itself.
    assert_eq!(reads("poll b p=0 w >6\n poll c p=0 v >5\n poll b p=0 x >9"), []);
    assert_eq!(reads("poll b p=0 w >6\n poll b p=1 v >5\n poll b p=0 x >9"), []);
    // Who moves need not go on where it was.
    assert_eq!(reads("poll b p=0 w >6\n assign b\n poll b p=0 v >5"), []);
    assert_eq!(reads("poll b p=0 w >6\n assign b p=0\n poll b p=0 v >5"), []);
    let found = reads("poll b p=0 w >6\n assign b p=1\n assign c\n poll b p=0 v >5");
    assert_eq!(found, [("nonmonotonic-poll", 1)]);
}

#[test]
fn an_offset_with_two_values_is_one_step() {
    let text = "poll a p=0 x >0\n poll a p=0 y >1\n poll b p=0 z >0\n poll b p=0 y >1";
    assert_eq!(anomalies(text), [("inconsistent-offsets", 1)]);
}

#[test]
fn records_that_come_again_are_counted() {
    let again = |text: &str| told(text).judge().counts.read_again;
    assert_eq!(again("poll b p=0 x >0\n poll b p=0 x >0"), 1);
    assert_eq!(again("poll b p=0 x >0\n poll c p=0 x >0"), 0);
    assert_eq!(again("poll b p=0 x >0\n assign b\n poll b p=0 x >0"), 0);
}

#[test]
fn values_in_another_order_than_sent() {
    let text = |sends: &str| {
        anomalies(&format!("{sends}\n poll b p=0 x >0\n poll b p=0 y >1\n poll b p=0 z >2"))
    };
    assert_eq!(text("send a p=0 x\n send a p=0 y\n send a p=0 z"), []);
    assert_eq!(text("send a p=0 y\n send a p=0 x\n send a p=0 z"), [("nonmonotonic-send", 1)]);
    let found = text("send a p=0 y #1\n send a p=0 x #1\n send a p=0 z #1");
    assert_eq!(found, [("int-nonmonotonic-send", 1)]);
    let found = text("send a p=0 y #1\n send a p=0 x #2\n send a p=0 z #3");
    assert_eq!(found, [("nonmonotonic-send", 1)]);
    // By two producers; and with what is nowhere, or was refused, between.
    assert_eq!(text("send a p=0 y\n send c p=0 x\n send a p=0 z"), []);
    let with = "send a p=0 x\n send a p=0 v\n send a p=0 y\n send a p=0 w\n fail a p=0 w";
    assert_eq!(text(&format!("{with}\n send a p=0 z")), []);
    // What should not be there at all has no order.
    let refused = "send a p=0 x\n send a p=0 w\n fail a p=0 w\n poll b p=0 w >0\n poll b p=0 x >1";
    assert_eq!(anomalies(refused), [("G1a", 1)]);
    // Sent without saying where: the order is that of the partition where it came to be.
    assert_eq!(text("send a y\n send a x\n send a z"), [("nonmonotonic-send", 1)]);
    assert_eq!(anomalies("send a y\n send a x\n poll b p=0 x >0\n poll b p=1 y >1"), []);
}

#[test]
fn a_watermark_that_falls() {
    let seen = |a: &str, b: &str| anomalies(&format!("watermark {a}\n watermark {b}"));
    assert_eq!(seen("a p=0 >5", "a p=0 >4"), [("nonmonotonic-watermark", 1)]);
    assert_eq!(seen("a p=0 >5", "a p=0 >5"), []);
    assert_eq!(seen("a p=0 >5", "b p=0 >4"), []);
    assert_eq!(seen("a p=0 >5", "a p=1 >4"), []);
}

#[test]
fn a_groups_offset_that_falls() {
    let text = |a: &str, b: &str| anomalies(&format!("{a}\n{b}"));
    let stored = "commit g p=0 >5 @10";
    assert_eq!(text(stored, "commit g p=0 >4 @11"), [("nonmonotonic-commit", 1)]);
    assert_eq!(text(stored, "committed g p=0 >4 @11"), [("lost-commit", 1)]);
    assert_eq!(text(stored, "committed g p=0 >5 @11"), []);
    assert_eq!(text(stored, "committed g p=0 >6 @11"), []);
    assert_eq!(text(stored, "commit g p=0 >6 @11"), []);
    // Earlier by the clock, though told later; another group; another partition.
    assert_eq!(text(stored, "committed g p=0 >4 @9"), []);
    assert_eq!(text(stored, "committed h p=0 >4 @11"), []);
    assert_eq!(text(stored, "committed g p=1 >4 @11"), []);
}

#[test]
fn files_may_come_in_any_order() {
    let sends =
        "send a x\n ack a p=0 x >0\n send a y\n ack a p=1 y >0\n send a p=0 z\n fail a z p=0";
    let polls = "poll b p=0 x >0\n poll b p=1 y >0\n poll b p=0 z >1\n end b p=0 >2\n end b p=1 >1";
    let forwards = told(&format!("{sends}\n{polls}")).judge();
    let backwards = told(&format!("{polls}\n{sends}")).judge();
    assert_eq!(forwards, backwards);
    assert_eq!(forwards.count(Anomaly::AbortedRead), 1);
    assert_eq!(forwards.anomalies().count(), 1);
}

#[test]
fn a_writer_that_contradicts_itself_is_refused() {
    let refused = |text: &str| {
        let mut history = History::new();
        let mut results = text.lines().map(|line| history.push(&event(line.trim())));
        results.find_map(Result::err)
    };
    let x = || "x".to_owned();
    assert_eq!(refused("send a p=0 x\n send b p=0 x"), Some(HistoryError::SentTwice(x())));
    assert_eq!(refused("send a x\n send b p=0 x"), Some(HistoryError::SentTwice(x())));
    assert_eq!(refused("ack b p=0 x >1"), Some(HistoryError::NotSent(x())));
    assert_eq!(refused("poll b p=0 x >1\n ack b p=0 x >1"), Some(HistoryError::NotSent(x())));
    let twice = refused("send a p=0 x\n ack a p=0 x >0\n fail a p=0 x");
    assert_eq!(twice, Some(HistoryError::AnsweredTwice(x())));
    for (line, field) in [
        ("send a p=0", "value"),
        ("poll a x >0", "partition"),
        ("poll a p=0 x", "offset"),
        ("ack a x >0", "partition"),
        ("end a p=0", "offset"),
        ("commit g p=0 >0", "time_ns"),
    ] {
        assert_eq!(refused(line), Some(HistoryError::Field(field)), "{line}");
    }
    let mut long = event("send a p=0 x");
    long.value = "v".repeat(TEXT_BYTES_MAX + 1).into();
    assert_eq!(History::new().push(&long), Err(HistoryError::TooLong));
}

#[test]
fn lines_say_what_they_were_made_from() {
    let mut event = event("poll a p=3 x >7 #2 @99");
    event.topic = "\"quoted\" \\ and\nbroken \u{1} ö ✓".into();
    let line = event.to_string();
    assert_eq!(Event::parse(&line), Ok(event), "{line}");
    let spaced = r#" { "op" : "send" , "client":"\u0061\/", "topic":"t", "value":"v",
        "extra":null, "more":-1.5e3, "huge":99999999999999999999, "partition": -1 } "#;
    let event = Event::parse(spaced.trim()).expect("all of it is JSON");
    assert_eq!((&*event.client, &*event.value, event.partition), ("a/", "v", -1));
}

#[test]
fn what_is_no_line_is_refused() {
    let refused = |line| Event::parse(line).expect_err(line);
    for line in [
        "{",
        "[]",
        "{}x",
        r#"{"op":"send""#,
        r#"{"op":"send",}"#,
        r#"{"op":"send" "client":"a"}"#,
        r#"{"op":{"send":1}}"#,
        r#"{"op":"se"#,
        r#"{"op":"\x"}"#,
        r#"{"op":"\ud83d\ude00"}"#,
        r#"{"op":"\u00"#,
        r#"{"op":"\"#,
        r#"{"op":nothing}"#,
    ] {
        assert!(matches!(refused(line), HistoryError::Syntax { .. }), "{line}");
    }
    assert_eq!(refused("{}"), HistoryError::Field("op"));
    assert_eq!(refused(r#"{"op":"other"}"#), HistoryError::Field("op"));
    assert_eq!(refused(r#"{"op":"poll","offset":"7"}"#), HistoryError::Field("offset"));
    assert_eq!(refused(r#"{"op":"poll","client":7}"#), HistoryError::Field("client"));
    assert_eq!(
        refused(r#"{"op":"poll","partition":3000000000}"#),
        HistoryError::Field("partition")
    );
}

#[test]
fn a_file_ends_at_a_line_that_was_not_finished() {
    let send = r#"{"op":"send","client":"a","topic":"t","partition":0,"value":"x"}"#;
    let mut history = History::new();
    history.read(format!("{send}\n\n{{\"op\":\"ack\",\"cli").as_bytes()).expect("it was killed");
    let counts = history.judge().counts;
    assert_eq!((counts.sent, counts.acked, counts.torn), (1, 0, 1));

    let wrong = |file: &[u8]| History::new().read(file).expect_err("wrong").to_string();
    let again = format!("{send}\n\n{send}\n");
    assert_eq!(wrong(again.as_bytes()), "line 3: \"x\" is sent a second time");
    assert_eq!(wrong(b"{\xff}\n"), "line 1: not a flat JSON object, from byte 1 on");
    assert_eq!(wrong(&[b' '; LINE_BYTES_MAX + 1]), "line 1: a text is too long");
}

#[test]
fn a_report_shows_the_first_and_counts_the_rest() {
    let mut history = History::new();
    for n in 0..8 {
        for client in ["a", "b"] {
            let line = format!("poll {client} p=0 {client}{n} >{n}");
            history.push(&event(&line)).expect("a line");
        }
    }
    let report = history.judge();
    assert_eq!(report.count(Anomaly::InconsistentOffsets), 8);
    assert_eq!(report.found(Anomaly::InconsistentOffsets).examples.len(), EXAMPLES_MAX);
    let text = report.to_string();
    assert!(text.starts_with("FAIL history: 0 sent"), "{text}");
    assert!(text.contains("FAIL history: inconsistent-offsets: 8\n"), "{text}");
    assert!(text.contains("t/0 offset 0: \"a0\" and \"b0\""), "{text}");
    assert!(text.ends_with("…"), "{text}");
}

/// A history of one partition: what is sent, and what is acknowledged, at these seconds.
fn timed(sent: &[i64], acked: &[i64]) -> History {
    let mut history = History::new();
    for (op, times) in [("send", sent), ("ack", acked)] {
        for (n, time) in times.iter().enumerate() {
            let what = format!(r#""value":"{n}","time_ns":{time}"#);
            let line = format!(r#"{{"op":"{op}","client":"a","topic":"t","partition":0,{what}}}"#);
            history.line(&line).unwrap();
        }
    }
    history
}

fn longest(history: &History, faults: &[&str]) -> Vec<(String, i64)> {
    let faults: Vec<_> = faults.iter().map(|line| Fault::parse(line).unwrap()).collect();
    history.gaps(&faults).into_iter().map(|gap| (gap.kind, gap.length_ns)).collect()
}

#[test]
fn a_gap_is_the_longest_one_while_the_fault_lasts() {
    let sent = [0, 10, 20, 25, 30, 40, 50, 60];
    let history = timed(&sent, &[1, 11, 21, 45, 46, 51, 61]);
    assert_eq!(longest(&history, &["25 kill t/0", "48 end"]), [("kill".to_owned(), 24)]);
    // Before it, and behind it, are other matters.
    assert_eq!(longest(&history, &["5 kill t/0", "20 end"]), [("kill".to_owned(), 10)]);
    // What goes on behind the next fault counts up to there, and whole for that one.
    let both = longest(&history, &["22 a t/0", "30 b t/0"]);
    assert_eq!(both, [("a".to_owned(), 9), ("b".to_owned(), 24)]);
    // Partitions that are not there, or that nobody writes to, tell nothing.
    assert!(longest(&history, &["22 a t/1 u/0", "90 b t/0"]).is_empty());
}

#[test]
fn a_gap_that_never_ends_lasts_as_long_as_the_load() {
    let history = timed(&[0, 10, 20, 30, 40], &[1, 11]);
    assert_eq!(longest(&history, &["15 kill t/0"]), [("kill".to_owned(), 29)]);
    assert_eq!(longest(&history, &["15 kill t/0", "25 end"]), [("kill".to_owned(), 9)]);
}

#[test]
fn a_fault_is_read_or_refused() {
    let fault = Fault::parse("17 power-all t/0 t/1").unwrap();
    assert_eq!((fault.time_ns, fault.kind.as_str(), fault.partitions.len()), (17, "power-all", 2));
    for bad in ["", "x kill", "17", "17 kill t"] {
        assert_eq!(Fault::parse(bad), Err(FaultError), "{bad}");
    }
}
