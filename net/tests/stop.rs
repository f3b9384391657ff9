//! The first signal is given to whoever waits, the second ends the process. Without the test
//! harness, whose main thread would take the signals; it starts itself again as the process to be
//! signalled.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use net::stop::StopSignals;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const CHILD: &str = "RINGBOLT_TEST_STOP_CHILD";

fn main() {
    if std::env::var_os(CHILD).is_some() {
        child();
    }
    for (first, second, code) in
        [(Signal::SIGTERM, Signal::SIGINT, 130), (Signal::SIGINT, Signal::SIGTERM, 143)]
    {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(CHILD, "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let id = Pid::from_raw(child.id() as i32);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut next = || lines.next().unwrap().unwrap();
        assert_eq!(next(), "ready");
        kill(id, first).unwrap();
        assert_eq!(next(), format!("got {first:?}"));
        kill(id, second).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code));
    }
    println!("test signals ... ok");
}

fn child() -> ! {
    let signals = StopSignals::block().unwrap();
    // Started after the block, like a shard: no signal may end it.
    std::thread::spawn(std::thread::park);
    println!("ready");
    println!("got {:?}", signals.wait().unwrap());
    loop {
        std::thread::park();
    }
}
