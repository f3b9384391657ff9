//! Where a broker listens and how it says that it is reached: `listeners`, `advertised.listeners`
//! and the listener names around them, in Kafka's syntax (`NAME://host:port, …`).

use coordinator::cluster::Endpoint;

/// Most listeners of one broker.
pub const LISTENERS_MAX: usize = 16;

/// The name of a listener that was given as `host:port` only.
pub const DEFAULT_NAME: &str = "PLAINTEXT";

/// One address on which connections are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its name, in upper case.
    pub name: String,
    /// Host name or address to bind; `0.0.0.0` and `::` are every interface.
    pub host: String,
    /// Port to bind; 0: any that is free.
    pub port: u16,
}

impl Listener {
    /// Whether it is bound on every interface.
    pub fn is_wildcard(&self) -> bool {
        is_wildcard(&self.host)
    }
}

/// Whether a host stands for every interface, and so cannot be told to clients.
pub fn is_wildcard(host: &str) -> bool {
    matches!(host, "" | "0.0.0.0" | "::" | "0:0:0:0:0:0:0:0")
}

/// One item of a listener list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// Its name, if it was given one, in upper case.
    pub name: Option<String>,
    pub host: String,
    pub port: u16,
}

/// Reads `NAME://host:port` or `host:port`, separated by commas.
pub(super) fn parse(text: &str) -> Result<Vec<Address>, String> {
    let items: Vec<&str> = text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
    if items.is_empty() {
        return Err("no listener is named".into());
    }
    if items.len() > LISTENERS_MAX {
        return Err(format!("{} listeners are more than {LISTENERS_MAX}", items.len()));
    }
    items.into_iter().map(parse_one).collect()
}

fn parse_one(item: &str) -> Result<Address, String> {
    let (name, address) = match item.split_once("://") {
        Some((name, address)) => (Some(name), address),
        None => (None, item),
    };
    if let Some(name) = name {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if name.is_empty() || !name.chars().all(legal) {
            return Err(format!("`{name}` is not a listener name"));
        }
    }
    let Some((host, port)) = address.rsplit_once(':') else {
        return Err(format!("`{item}` has no port; write HOST:PORT"));
    };
    let port = port.parse().map_err(|_| format!("`{port}` is not a port (0 to 65535)"))?;
    let host = match host.strip_prefix('[').map(|host| host.strip_suffix(']')) {
        Some(Some(host)) => host,
        Some(None) => return Err(format!("`{host}` has no closing bracket")),
        None if host.contains(':') => {
            return Err(format!("write the IPv6 address in brackets: [{host}]:{port}"));
        }
        None => host,
    };
    if host.chars().any(|c| c.is_whitespace() || c == '/') {
        return Err(format!("`{host}` is not a host name or address"));
    }
    let name = name.map(str::to_ascii_uppercase);
    Ok(Address { name, host: host.to_string(), port })
}

/// What the settings say about listeners, each with the text as it was given.
#[derive(Default)]
pub(super) struct Given<'a> {
    pub listeners: &'a str,
    pub advertised: Option<&'a str>,
    pub controller_names: &'a str,
    pub protocol_map: &'a str,
}

/// What they mean.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Listeners {
    pub bound: Vec<Listener>,
    /// Those for coordinators.
    pub control: Vec<Listener>,
    pub advertised: Vec<Endpoint>,
    pub warnings: Vec<String>,
}

/// What is wrong, and with which setting.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub setting: &'static str,
    pub reason: String,
}

fn wrong(setting: &'static str) -> impl Fn(String) -> Wrong {
    move |reason| Wrong { setting, reason }
}

/// Puts the settings together. `hostname` is asked only where a listener on every interface has
/// no advertised address.
pub(super) fn resolve(given: &Given<'_>, hostname: &str) -> Result<Listeners, Wrong> {
    let mut warnings = Vec::new();
    let (bound, control) = bound(given)?;
    let advertised = match given.advertised {
        Some(text) => advertised(text, &bound, given).map_err(wrong("advertised.listeners"))?,
        None => bound
            .iter()
            .map(|listener| {
                let mut host = listener.host.clone();
                if listener.is_wildcard() {
                    host = hostname.to_string();
                    warnings.push(format!(
                        "{} listens on every interface and is advertised to clients as {host}; \
                         set advertised.listeners (--advertise) if they cannot resolve that",
                        listener.name
                    ));
                }
                Endpoint { listener: listener.name.clone(), host, port: listener.port }
            })
            .collect(),
    };
    Ok(Listeners { bound, control, advertised, warnings })
}

/// The listeners for clients and brokers, and those for coordinators.
fn bound(given: &Given<'_>) -> Result<(Vec<Listener>, Vec<Listener>), Wrong> {
    let wrong = wrong("listeners");
    let controllers: Vec<String> = names(given.controller_names);
    let mut bound: Vec<Listener> = Vec::new();
    let mut control: Vec<Listener> = Vec::new();
    for address in parse(given.listeners).map_err(&wrong)? {
        let name = address.name.unwrap_or_else(|| DEFAULT_NAME.to_string());
        check_protocol(&name, given.protocol_map)?;
        if bound.iter().chain(&control).any(|other| other.name == name) {
            return Err(wrong(format!("two listeners are called {name}")));
        }
        let clash = |other: &Listener| {
            let same_host = other.host == address.host
                || is_wildcard(&other.host)
                || is_wildcard(&address.host);
            other.port == address.port && address.port != 0 && same_host
        };
        if let Some(other) = bound.iter().chain(&control).find(|other| clash(other)) {
            return Err(wrong(format!("{name} and {} want the same port", other.name)));
        }
        let is_control = controllers.contains(&name);
        let listener = Listener { name, host: address.host, port: address.port };
        if is_control { control.push(listener) } else { bound.push(listener) }
    }
    Ok((bound, control))
}

/// Refuses a listener whose protocol is not plain text.
fn check_protocol(name: &str, protocol_map: &str) -> Result<(), Wrong> {
    let mut protocol = match name {
        "SSL" | "SASL_PLAINTEXT" | "SASL_SSL" => name.to_string(),
        _ => DEFAULT_NAME.to_string(),
    };
    for pair in protocol_map.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let Some((listener, mapped)) = pair.split_once(':') else {
            let reason = format!("`{pair}` is not NAME:PROTOCOL");
            return Err(wrong("listener.security.protocol.map")(reason));
        };
        if listener.trim().eq_ignore_ascii_case(name) {
            protocol = mapped.trim().to_ascii_uppercase();
        }
    }
    if protocol == "PLAINTEXT" {
        return Ok(());
    }
    Err(wrong("listeners")(format!(
        "listener {name} speaks {protocol}, which this release does not; only PLAINTEXT"
    )))
}

fn advertised(text: &str, bound: &[Listener], given: &Given<'_>) -> Result<Vec<Endpoint>, String> {
    let controllers = names(given.controller_names);
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for address in parse(text)? {
        let listener = match address.name {
            Some(name) => name,
            None if bound.len() == 1 => bound[0].name.clone(),
            None => return Err("write NAME://HOST:PORT, as there are several listeners".into()),
        };
        if controllers.contains(&listener) {
            continue;
        }
        let Some(behind) = bound.iter().find(|other| other.name == listener) else {
            return Err(format!("there is no listener {listener} to advertise"));
        };
        if endpoints.iter().any(|other| other.listener == listener) {
            return Err(format!("listener {listener} is advertised twice"));
        }
        if is_wildcard(&address.host) {
            return Err(format!("clients cannot connect to `{}`; name a host", address.host));
        }
        if address.port == 0 && behind.port != 0 {
            return Err("port 0 cannot be advertised".into());
        }
        endpoints.push(Endpoint { listener, host: address.host, port: address.port });
    }
    if let Some(missing) =
        bound.iter().find(|listener| !endpoints.iter().any(|e| e.listener == listener.name))
    {
        return Err(format!("listener {} has no advertised address", missing.name));
    }
    Ok(endpoints)
}

/// Listener names, in upper case.
fn names(text: &str) -> Vec<String> {
    text.split(',')
        .map(|name| name.trim().to_ascii_uppercase())
        .filter(|name| !name.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(listeners: &str) -> Given<'_> {
        Given { listeners, ..Given::default() }
    }

    fn reason(given: &Given<'_>) -> String {
        resolve(given, "box").unwrap_err().reason
    }

    #[test]
    fn a_plain_address_is_one_plaintext_listener() {
        let found = resolve(&given("127.0.0.1:9092"), "box").unwrap();
        let listener = Listener { name: "PLAINTEXT".into(), host: "127.0.0.1".into(), port: 9092 };
        assert_eq!(found.bound, [listener]);
        assert_eq!(found.advertised[0].host, "127.0.0.1");
        assert!(found.warnings.is_empty());
    }

    #[test]
    fn a_wildcard_is_advertised_by_the_machines_name_and_said_so() {
        for host in ["", "0.0.0.0", "[::]"] {
            let found = resolve(&given(&format!("{host}:1234")), "box").unwrap();
            assert_eq!((&*found.advertised[0].host, found.advertised[0].port), ("box", 1234));
            assert_eq!(found.warnings.len(), 1);
        }
    }

    #[test]
    fn several_listeners_are_told_apart_by_name() {
        let two = "inside://10.0.0.1:9092, OUTSIDE://[2001:db8::1]:9093";
        let all = Given {
            advertised: Some("OUTSIDE://kafka.example:443,INSIDE://10.0.0.1:9092"),
            protocol_map: "INSIDE:PLAINTEXT,outside:plaintext",
            ..given(two)
        };
        let found = resolve(&all, "box").unwrap();
        assert_eq!(found.bound[1].host, "2001:db8::1");
        let told: Vec<_> = found.advertised.iter().map(|e| (&*e.listener, &*e.host)).collect();
        assert_eq!(told, [("OUTSIDE", "kafka.example"), ("INSIDE", "10.0.0.1")]);
    }

    #[test]
    fn the_coordinators_listener_is_not_for_clients() {
        let kraft = Given {
            controller_names: "CONTROLLER",
            advertised: Some("PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093"),
            ..given("PLAINTEXT://:9092,CONTROLLER://:9093")
        };
        let found = resolve(&kraft, "box").unwrap();
        assert_eq!((found.bound.len(), found.advertised.len()), (1, 1));
        assert_eq!((found.control.len(), &*found.control[0].name), (1, "CONTROLLER"));
    }

    #[test]
    fn what_cannot_be_is_refused_with_a_reason() {
        for (text, expected) in [
            ("", "no listener"),
            ("localhost", "no port"),
            ("localhost:70000", "not a port"),
            ("localhost:x", "not a port"),
            ("::1:9092", "brackets"),
            ("[::1:9092", "closing bracket"),
            ("A B://h:1", "not a listener name"),
            ("http//h:1", "not a host"),
            ("A://h:1,A://h:2", "two listeners are called A"),
            ("A://h:1,B://h:1", "want the same port"),
            ("A://h:1,B://:1", "want the same port"),
            ("SSL://h:1", "speaks SSL"),
        ] {
            let reason = reason(&given(text));
            assert!(reason.contains(expected), "{text}: {reason}");
        }
        let many: Vec<String> = (0..=LISTENERS_MAX).map(|n| format!("L{n}://h:{n}")).collect();
        assert!(reason(&given(&many.join(","))).contains("more than 16"));
        let mapped = Given { protocol_map: "IN:SASL_SSL", ..given("IN://h:1") };
        assert!(reason(&mapped).contains("speaks SASL_SSL"));
        let only = Given { controller_names: "C", ..given("C://h:1") };
        assert_eq!(resolve(&only, "box").map(|found| found.bound), Ok(Vec::new()));
        for (advertised, expected) in [
            ("0.0.0.0:9092", "name a host"),
            ("B://h:1", "no listener B"),
            ("h:0", "port 0"),
            ("A://h:1,A://h:1", "advertised twice"),
        ] {
            let given = Given { advertised: Some(advertised), ..given("A://h:1") };
            let reason = reason(&given);
            assert!(reason.contains(expected), "{advertised}: {reason}");
        }
        let half = Given { advertised: Some("A://h:1"), ..given("A://h:1,B://h:2") };
        assert!(reason(&half).contains("no advertised address"));
    }
}
