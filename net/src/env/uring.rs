//! The network on glommio: how a shard listens, connects, and is linked with the others.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

pub use engine::env::uring::{
    ShardOptions, Shards, StartError, UringEnv, pulse::Pulse, run, start_shards,
};

use super::NetEnv;
use super::lane::{LaneRx, LaneTx, lane};

mod listener;
mod stream;

pub use listener::{Door, UringListener, bind};
pub use stream::UringStream;

impl NetEnv for UringEnv {
    type Stream = UringStream;
    type Listener = UringListener;
    type Door = Door;
    type LaneTx<T: Send + 'static> = LaneTx<T>;
    type LaneRx<T: Send + 'static> = LaneRx<T>;

    async fn listen(&self, door: Door) -> io::Result<UringListener> {
        Ok(UringListener::new(self.clone(), door))
    }

    async fn resolve(&self, address: &str) -> io::Result<SocketAddr> {
        if let Ok(address) = address.parse() {
            return Ok(address);
        }
        let name = address.to_owned();
        let found = glommio::executor().spawn_blocking(move || name.to_socket_addrs()).await?;
        let nothing = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        found.into_iter().next().ok_or_else(nothing)
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<UringStream> {
        UringStream::connect(self, to).await
    }

    fn lane<T: Send + 'static>(len_max: usize) -> (LaneTx<T>, LaneRx<T>) {
        lane(len_max)
    }
}
