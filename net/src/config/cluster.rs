//! Who belongs together: `process.roles`, `controller.quorum.voters`, `cluster.id` and the listeners
//! on which nodes talk to each other, in Kafka's names. Without voters, or with this node as the
//! only one, the node is the whole cluster and nothing of this is needed.

use engine::ids::BrokerId;

use super::listeners::{Listener, is_wildcard};

/// Longest cluster id, in bytes: Kafka's are 22.
const CLUSTER_ID_BYTES_MAX: usize = 64;

/// A node's place in a cluster of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    /// The cluster's name, the same on every node.
    pub id: String,
    /// Whether this node is a coordinator. One that is not among the voters waits until it is let
    /// in (`ringbolt quorum add`).
    pub votes: bool,
    /// Whether this node is a broker.
    pub serves: bool,
    /// The coordinators: who, and `host:port`.
    pub voters: Vec<(BrokerId, String)>,
    /// Where this node answers other nodes as a coordinator; set where it votes.
    pub control: Option<Listener>,
    /// The listener by which brokers fetch from each other.
    pub peer_listener: String,
}

/// What the settings say, each as it was given.
pub(super) struct Given<'a> {
    pub me: BrokerId,
    pub roles: &'a str,
    pub voters: &'a str,
    pub id: &'a str,
    pub peer_listener: &'a str,
    /// Listeners for clients and brokers, and those for coordinators.
    pub bound: &'a [Listener],
    pub control: &'a [Listener],
}

/// What is wrong, and with which setting.
type Wrong = (&'static str, String);

/// Puts the settings together; `None`: this node is the whole cluster.
pub(super) fn resolve(given: &Given<'_>) -> Result<Option<ClusterConfig>, Wrong> {
    let voters = voters(given.voters).map_err(|why| ("controller.quorum.voters", why))?;
    let (serves, votes) = roles(given.roles, given.me, &voters)?;
    let me = voters.iter().any(|(id, _)| *id == given.me);
    if voters.is_empty() || (voters.len() == 1 && me && serves) {
        return match serves {
            true => Ok(None),
            false => Err(("controller.quorum.voters", "a coordinator alone needs voters".into())),
        };
    }
    if me && !votes {
        let why = format!("node {} is among them and lacks the role controller", given.me);
        return Err(("controller.quorum.voters", why));
    }
    if voters.len().is_multiple_of(2) {
        let why = format!(
            "{} voters survive no more losses than {}; take an odd number",
            voters.len(),
            voters.len() - 1
        );
        return Err(("controller.quorum.voters", why));
    }
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let id = given.id.trim();
    if id.is_empty() || id.len() > CLUSTER_ID_BYTES_MAX || !id.chars().all(legal) {
        let why = "a cluster of several nodes needs one: up to 64 letters, digits, - and _, the \
                   same on every node";
        return Err(("cluster.id", why.into()));
    }
    let control = given.control.first().cloned();
    if votes && control.is_none() {
        let why = "a coordinator needs one of `listeners` to be named here";
        return Err(("controller.listener.names", why.into()));
    }
    let peer_listener = given.peer_listener.trim().to_ascii_uppercase();
    if serves {
        check_peer_listener(&peer_listener, given.bound)?;
    }
    let control = control.filter(|_| votes);
    let id = id.to_string();
    Ok(Some(ClusterConfig { id, votes, serves, voters, control, peer_listener }))
}

/// Whether the node serves clients, and whether it votes.
fn roles(text: &str, me: BrokerId, voters: &[(BrokerId, String)]) -> Result<(bool, bool), Wrong> {
    let (mut serves, mut votes) = (false, false);
    for role in text.split(',').map(str::trim).filter(|role| !role.is_empty()) {
        match role {
            "broker" => serves = true,
            "controller" => votes = true,
            _ => {
                return Err((
                    "process.roles",
                    format!("`{role}` is neither broker nor controller"),
                ));
            }
        }
    }
    if !serves && !votes {
        return Ok((true, voters.iter().any(|(id, _)| *id == me)));
    }
    Ok((serves, votes))
}

fn check_peer_listener(name: &str, bound: &[Listener]) -> Result<(), Wrong> {
    let wrong = |why: String| Err(("inter.broker.listener.name", why));
    let Some(listener) = bound.iter().find(|listener| listener.name == name) else {
        return wrong(format!("there is no listener `{name}`; a broker of a cluster needs one"));
    };
    if bound.len() < 2 {
        return wrong("replicas need a listener of their own, apart from the clients'".into());
    }
    if is_wildcard(&listener.host) {
        tracing::debug!(name, "replicas are served on every interface");
    }
    Ok(())
}

/// Reads `ID@HOST:PORT`, separated by commas.
fn voters(text: &str) -> Result<Vec<(BrokerId, String)>, String> {
    let mut voters: Vec<(BrokerId, String)> = Vec::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let malformed = || format!("`{item}` is not ID@HOST:PORT");
        let (id, address) = item.split_once('@').ok_or_else(malformed)?;
        let id = id.parse().map(BrokerId).map_err(|_| malformed())?;
        let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        if id.0 < 0 || port.is_none_or(|port| port == 0) {
            return Err(malformed());
        }
        if voters.iter().any(|(other, _)| *other == id) {
            return Err(format!("node {id} is named twice"));
        }
        voters.push((id, address.to_string()));
    }
    Ok(voters)
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: &str = "1@127.0.0.1:9191, 2@127.0.0.1:9192,3@[::1]:9193";

    fn listener(name: &str, port: u16) -> Listener {
        Listener { name: name.into(), host: "127.0.0.1".into(), port }
    }

    fn check(me: i32, roles: &str, voters: &str) -> Result<Option<ClusterConfig>, Wrong> {
        let bound = [listener("PLAINTEXT", 9092), listener("REPLICATION", 9093)];
        let control = [listener("CONTROLLER", 9191)];
        resolve(&Given {
            me: BrokerId(me),
            roles,
            voters,
            id: "c",
            peer_listener: "replication",
            bound: &bound,
            control: &control,
        })
    }

    #[test]
    fn a_node_alone_needs_nothing() {
        assert_eq!(check(1, "", ""), Ok(None));
        assert_eq!(check(1, "broker,controller", "1@localhost:9093"), Ok(None));
    }

    #[test]
    fn roles_and_votes_agree() {
        let both = check(1, "broker,controller", THREE).unwrap().unwrap();
        assert!(both.votes && both.serves && both.control.is_some());
        assert_eq!(both.voters[2], (BrokerId(3), "[::1]:9193".to_string()));
        let broker = check(4, "broker", THREE).unwrap().unwrap();
        assert!(!broker.votes && broker.serves && broker.control.is_none());
        let coordinator = check(2, "controller", THREE).unwrap().unwrap();
        assert!(coordinator.votes && !coordinator.serves);
        let waits = check(4, "controller", THREE).unwrap().unwrap();
        assert!(waits.votes && waits.control.is_some() && waits.voters.len() == 3);
        assert!(check(2, "broker", THREE).unwrap_err().1.contains("lacks"));
        assert!(check(2, "boss", THREE).unwrap_err().1.contains("boss"));
    }

    #[test]
    fn an_even_number_is_refused_with_the_reason() {
        let (setting, why) = check(1, "controller", "1@a:1,2@b:2").unwrap_err();
        assert_eq!(setting, "controller.quorum.voters");
        assert!(why.contains("2 voters survive no more losses than 1"), "{why}");
        for bad in ["1@a", "a@b:1", "1@a:0", "-1@a:1", "1@a:1,1@b:2"] {
            assert!(check(1, "", bad).is_err(), "{bad}");
        }
    }
}
