//! A process that is out of descriptors keeps its port and accepts again when it has some. A test
//! binary of its own, because it lowers the limit of its process.

use std::time::{Duration, Instant};

use engine::env::{Env, Queue};
use net::env::uring::{bind, run};
use net::env::{Listener, NetEnv, Stream};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

#[test]
fn accepting_waits_for_descriptors() {
    let door = bind(([127, 0, 0, 1], 0).into(), 1).unwrap().remove(0);
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 100, hard).unwrap();
    run(|env| async move {
        let listener = env.listen(door).await.unwrap();
        let to = listener.local();
        // The first wait for the port opens a descriptor; let it.
        env.sleep_until(env.now().after(Duration::from_millis(5))).await;
        let mut client = env.connect(to).await.unwrap();
        let mut server = listener.accept().await.unwrap();
        for round in 0..2 {
            let mut hoard = Vec::new();
            while let Ok(file) = std::fs::File::open("/dev/null") {
                hoard.push(file);
            }
            // Two descriptors for clients; the kernel completes their connections by itself. The
            // wait for the port holds a third, with which the first of them is accepted.
            hoard.truncate(hoard.len() - 2);
            let first = env.connect(to).await.unwrap();
            let next = env.connect(to).await.unwrap();
            let early = listener.accept().await.unwrap();
            let cpu = cpu_time();
            let began = Instant::now();
            let (env1, hold) = (env.clone(), hoard);
            env.spawn(Queue::Background, async move {
                env1.sleep_until(env1.now().after(Duration::from_millis(250))).await;
                drop(hold);
            });
            let accepted = listener.accept().await.unwrap();
            drop((first, early));
            let waited = began.elapsed();
            assert!(waited >= Duration::from_millis(240), "round {round}: {waited:?}");
            assert!(cpu_time() - cpu < Duration::from_millis(100), "it must not spin");
            accepted.write_all(&[std::io::IoSlice::new(b"hi")]).await.unwrap();
            assert_eq!(next.read(&mut [0; 9]).await.unwrap(), 2);
            (client, server) = (next, accepted);
        }
        drop((client, server));
    })
    .unwrap();
}

/// Processor time of this thread.
fn cpu_time() -> Duration {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
    time.into()
}
