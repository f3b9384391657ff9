//! A raw stream over the loopback: what the kernel can do between two threads of this process with
//! chunks of a size, as the measure of what a broker does with fetches of that size.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes per second that one thread can write in chunks of `chunk` and another can read, over one
/// connection, for `time` after `warm_up`.
pub fn stream(chunk: usize, warm_up: Duration, time: Duration) -> io::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::scope(|scope| {
        let writer = scope.spawn(move || -> io::Result<()> {
            let (mut stream, _) = listener.accept()?;
            stream.set_nodelay(true)?;
            let data = vec![0x5a; chunk];
            loop {
                match stream.write_all(&data) {
                    Ok(()) => {}
                    // The reader has seen enough.
                    Err(error) if is_gone(&error) => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
        });
        let rate = read(TcpStream::connect(address)?, chunk, warm_up, time);
        writer.join().expect("the writer does not panic")?;
        rate
    })
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

fn read(mut stream: TcpStream, chunk: usize, warm_up: Duration, time: Duration) -> io::Result<f64> {
    let mut buffer = vec![0; chunk];
    let begun = Instant::now();
    let (mut from, mut bytes) = (None, 0u64);
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let now = Instant::now();
        match from {
            None if now - begun >= warm_up => from = Some(now),
            None => {}
            Some(from) => {
                bytes += read as u64;
                if now - from >= time {
                    return Ok(bytes as f64 / (now - from).as_secs_f64());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_flows_and_ends() {
        let time = Duration::from_millis(20);
        let rate = stream(64 << 10, time, time).expect("the loopback works");
        assert!(rate > 1e6, "{rate}");
    }
}
