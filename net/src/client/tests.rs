//! The client against brokers that are old, that split and join their answers, and that lie.

use std::net::TcpListener;
use std::thread;

use super::*;
use crate::wire::api_versions::ApiVersion;
use crate::wire::metadata::{MetadataRequest, MetadataResponse, ResponseTopic};

const SECOND: Duration = Duration::from_secs(1);

/// A broker of one connection: gets each request's frame, answers with bytes (none: it closes).
fn broker(
    mut answer: impl FnMut(&[u8]) -> Option<Vec<u8>> + Send + 'static,
) -> (SocketAddr, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the client connects");
        let mut length = [0; 4];
        while stream.read_exact(&mut length).is_ok() {
            let mut frame = vec![0; i32::from_be_bytes(length) as usize];
            stream.read_exact(&mut frame).expect("a whole request");
            match answer(&frame) {
                Some(bytes) => stream.write_all(&bytes).expect("the client reads"),
                None => return,
            }
        }
    });
    (address, thread)
}

fn key_version_id(frame: &[u8]) -> (i16, i16, i32) {
    let short = |at: usize| i16::from_be_bytes([frame[at], frame[at + 1]]);
    (short(0), short(2), i32::from_be_bytes(frame[4..8].try_into().expect("four")))
}

fn versions(api_keys: &[(i16, i16, i16)], error_code: ErrorCode) -> ApiVersionsResponse<'static> {
    let api_keys = api_keys
        .iter()
        .map(|&(api_key, min_version, max_version)| ApiVersion {
            api_key,
            min_version,
            max_version,
        })
        .collect();
    ApiVersionsResponse { error_code, api_keys, ..ApiVersionsResponse::default() }
}

/// Knows ApiVersions 0–2 and Metadata up to 5; answers Metadata with `metadata(correlation id)`.
fn old_broker(
    mut metadata: impl FnMut(i32) -> Option<Vec<u8>> + Send + 'static,
) -> (SocketAddr, thread::JoinHandle<()>) {
    let apis = [(3, 0, 5), (18, 0, 2)];
    broker(move |frame| match key_version_id(frame) {
        (18, version @ 0..=2, id) => {
            Some(versions(&apis, ErrorCode::None).encode(version, id).into_bytes())
        }
        (18, _, id) => {
            Some(versions(&apis, ErrorCode::UnsupportedVersion).encode(0, id).into_bytes())
        }
        (3, 5, id) => metadata(id),
        other => panic!("{other:?} was not offered"),
    })
}

#[test]
fn an_old_broker_is_asked_in_versions_that_it_has() {
    let (address, broker) = old_broker(|id| {
        let response = MetadataResponse { controller_id: 7, ..MetadataResponse::default() };
        Some(response.encode(5, id).into_bytes())
    });
    let mut client = Client::connect(address, "test", SECOND).expect("it answers");
    assert_eq!(client.versions().of_api(18), Some((0, 2)));
    for _ in 0..3 {
        let response = client.call(&MetadataRequest::default()).expect("it answers");
        assert_eq!(response.controller_id, 7);
    }
    let missing = client.call(&crate::wire::describe_cluster::DescribeClusterRequest::default());
    assert!(matches!(missing, Err(ClientError::Version { key: 60, theirs: None, .. })));
    assert!(client.versions().at_most::<MetadataRequest<'_>>(4).is_ok_and(|v| v == 4));
    drop(client);
    broker.join().expect("the broker saw nothing odd");
}

#[test]
fn answers_in_flight_come_whole_however_they_are_cut() {
    // Collects four requests, then sends their answers in one piece, of which the second is large.
    let mut waiting = Vec::new();
    let (address, broker) = old_broker(move |id| {
        let topics = (0..if id % 4 == 2 { 20 } else { 1 }).map(|_| ResponseTopic {
            name: Some("t".repeat(BUFFER_BYTES / 7).into()),
            ..ResponseTopic::default()
        });
        let response = MetadataResponse {
            topics: topics.collect(),
            controller_id: id,
            ..MetadataResponse::default()
        };
        waiting.extend(response.encode(5, id).into_bytes());
        let due = id % 4 == 1;
        Some(if due { std::mem::take(&mut waiting) } else { Vec::new() })
    });
    let client = Client::connect(address, "test", SECOND).expect("it answers");
    let (mut sender, mut receiver) = client.split();
    let mut frame = sender.frame(&MetadataRequest::default(), 5).into_bytes();
    for _ in 0..5 {
        let sent: Vec<_> = (0..4).map(|_| sender.send_frame(&mut frame).expect("sent")).collect();
        for id in sent {
            let answer = receiver.receive().expect("an answer");
            assert_eq!(answer.correlation_id, id);
            let response = answer.decode::<MetadataResponse<'_>>(5).expect("valid");
            assert_eq!(response.controller_id, id);
            assert_eq!(response.topics.len(), if id % 4 == 2 { 20 } else { 1 });
        }
    }
    sender.finish().expect("still connected");
    assert!(matches!(receiver.receive(), Err(ClientError::Closed)));
    broker.join().expect("the broker saw nothing odd");
}

#[test]
fn what_is_not_an_answer_is_an_error() {
    type Lie = fn(i32) -> Option<Vec<u8>>;
    let lies: [Lie; 5] = [
        |_| Some(i32::MAX.to_be_bytes().to_vec()),
        |_| Some((-1i32).to_be_bytes().to_vec()),
        |id| Some(MetadataResponse::default().encode(5, id + 1).into_bytes()),
        |id| Some([&8i32.to_be_bytes()[..], &id.to_be_bytes(), &[0xff; 4]].concat()),
        |_| None,
    ];
    let mut seen = Vec::new();
    for lie in lies {
        let (address, broker) = old_broker(lie);
        let mut client = Client::connect(address, "test", SECOND).expect("it answers");
        seen.push(match client.call(&MetadataRequest::default()) {
            Err(ClientError::Length(len)) => len.to_string(),
            Err(ClientError::Correlation { want, got }) => format!("{}", got - want),
            Err(ClientError::Malformed(_)) => "malformed".to_owned(),
            Err(ClientError::Closed) => "closed".to_owned(),
            other => panic!("{other:?}"),
        });
        drop(client);
        broker.join().expect("the broker saw nothing odd");
    }
    assert_eq!(seen, ["2147483647", "-1", "1", "malformed", "closed"]);
}

#[test]
fn a_port_where_nobody_listens_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let refused = Client::connect(address, "test", SECOND);
    assert!(matches!(refused, Err(ClientError::Io(error)) if
        error.kind() == io::ErrorKind::ConnectionRefused));
}
