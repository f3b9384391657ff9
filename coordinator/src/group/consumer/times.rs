//! The times that a group of the consumer protocol goes by: the broker's, or its own (KIP-848's
//! settings of the resource type GROUP, Kafka's `GroupConfig`), between bounds that the broker
//! sets.
//!
//! One table, [`SETTINGS`], names them. The controller takes a group's own values only if they are
//! whole ([`Bounds::check_own`]); a broker whose bounds are others by then uses the nearest value
//! that they allow ([`Own::within`]).

use std::collections::BTreeMap;
use std::time::Duration;

/// The times of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// How long a member may be silent.
    pub session: Duration,
    /// How often a member is to send a heartbeat; shorter than the session.
    pub heartbeat_interval: Duration,
    /// How long a target assignment stands before another is made, so that many members who come
    /// at once do not each bring about one (KIP-1263). The first of a group is made at once.
    pub assignment_interval: Duration,
}

/// One of the times, as it is set.
pub struct Setting {
    /// What a group's own is called.
    pub name: &'static str,
    /// The broker's, for groups without their own.
    pub usual: &'static str,
    /// The broker's bounds of both.
    pub bounds: [&'static str; 2],
    /// The lowest value that there can be, in milliseconds.
    pub least: i32,
    /// Kafka's default of the broker's, in milliseconds.
    pub default: &'static str,
    /// What it does, in one sentence.
    pub sentence: &'static str,
    get: fn(&Times) -> Duration,
    own: fn(&mut Own) -> &mut Option<Duration>,
}

/// All of them, in the order in which they are checked and told.
pub static SETTINGS: [Setting; 3] = [
    Setting {
        name: "consumer.heartbeat.interval.ms",
        usual: "group.consumer.heartbeat.interval.ms",
        bounds: [
            "group.consumer.min.heartbeat.interval.ms",
            "group.consumer.max.heartbeat.interval.ms",
        ],
        least: 1,
        default: "5000",
        sentence: "How often a member of a group of the consumer protocol is to send a heartbeat.",
        get: |times| times.heartbeat_interval,
        own: |own| &mut own.heartbeat_interval,
    },
    Setting {
        name: "consumer.session.timeout.ms",
        usual: "group.consumer.session.timeout.ms",
        bounds: ["group.consumer.min.session.timeout.ms", "group.consumer.max.session.timeout.ms"],
        least: 1,
        default: "45000",
        sentence: "How long a member of a group of the consumer protocol may be silent.",
        get: |times| times.session,
        own: |own| &mut own.session,
    },
    Setting {
        name: "consumer.assignment.interval.ms",
        usual: "group.consumer.assignment.interval.ms",
        bounds: [
            "group.consumer.min.assignment.interval.ms",
            "group.consumer.max.assignment.interval.ms",
        ],
        least: 0,
        default: "1000",
        sentence: "How long a group's target assignment stands before another is made.",
        get: |times| times.assignment_interval,
        own: |own| &mut own.assignment_interval,
    },
];

/// The setting with this name.
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

impl Setting {
    /// Its value among `times`, in milliseconds.
    pub fn millis(&self, times: &Times) -> u64 {
        u64::try_from((self.get)(times).as_millis()).unwrap_or(u64::MAX)
    }

    /// A value as text, typed; blanks around it do not count, as in Kafka's `ConfigDef`.
    fn parse(&self, text: &str) -> Result<Duration, OwnError> {
        let invalid = |why: String| OwnError::Invalid { name: self.name, value: text.into(), why };
        let number: i32 =
            text.trim().parse().map_err(|_| invalid("Not a number of type INT".into()))?;
        match u64::try_from(number) {
            Ok(ms) if number >= self.least => Ok(Duration::from_millis(ms)),
            _ => Err(invalid(format!("Value must be at least {}", self.least))),
        }
    }
}

/// What a broker goes by, and what it allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// For groups without their own.
    pub usual: Times,
    /// The lowest that a group may have.
    pub min: Times,
    /// The highest that a group may have.
    pub max: Times,
}

impl Default for Bounds {
    /// Kafka's.
    fn default() -> Bounds {
        let times = |session, heartbeat, assignment| Times {
            session: Duration::from_secs(session),
            heartbeat_interval: Duration::from_secs(heartbeat),
            assignment_interval: Duration::from_secs(assignment),
        };
        Bounds { usual: times(45, 5, 1), min: times(45, 5, 0), max: times(60, 15, 15) }
    }
}

/// Why a broker's times contradict each other: which setting, and what it must be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting} must be {must} {than}")]
pub struct BoundsError {
    /// The setting.
    pub setting: &'static str,
    /// What it must be, next to the other.
    pub must: &'static str,
    /// The other.
    pub than: &'static str,
}

/// Why a group cannot have its own settings like this. In Kafka's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OwnError {
    /// No group of the consumer protocol has such a setting. Those of share and streams groups,
    /// which are not served, are among them.
    #[error("Unknown group config name: {0}")]
    Unknown(String),
    /// No value of this setting.
    #[error("Invalid value {value} for configuration {name}: {why}")]
    Invalid {
        /// The setting.
        name: &'static str,
        /// The value as it was given.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// Not as this broker wants it, or the settings contradict each other.
    #[error(transparent)]
    Contradiction(BoundsError),
}

const AT_LEAST: &str = "greater than or equal to";
const AT_MOST: &str = "less than or equal to";

impl Bounds {
    /// Whether the broker's times hold together: each between its bounds, and the session longer
    /// than a heartbeat's interval (Kafka's `GroupCoordinatorConfig`).
    pub fn check(&self) -> Result<(), BoundsError> {
        let must = |holds: bool, setting, must, than| match holds {
            true => Ok(()),
            false => Err(BoundsError { setting, must, than }),
        };
        for setting in &SETTINGS {
            let [min, max] = setting.bounds;
            let of = setting.get;
            must(of(&self.max) >= of(&self.min), max, AT_LEAST, min)?;
            must(of(&self.usual) >= of(&self.min), setting.usual, AT_LEAST, min)?;
            must(of(&self.usual) <= of(&self.max), setting.usual, AT_MOST, max)?;
        }
        let [heartbeat, session, _] = &SETTINGS;
        let is_shorter = self.usual.heartbeat_interval < self.usual.session;
        must(is_shorter, heartbeat.usual, "less than", session.usual)
    }

    /// Whether a group may have `overrides` as its own: only settings that there are, each between
    /// the broker's bounds, and with the broker's for the others its session longer than its
    /// heartbeats' interval (Kafka's `GroupConfig.validate`).
    pub fn check_own(&self, overrides: &BTreeMap<String, String>) -> Result<Own, OwnError> {
        if let Some(unknown) = overrides.keys().find(|name| find(name).is_none()) {
            return Err(OwnError::Unknown(unknown.clone()));
        }
        let mut own = Own::default();
        for setting in &SETTINGS {
            if let Some(text) = overrides.get(setting.name) {
                *(setting.own)(&mut own) = Some(setting.parse(text)?);
            }
        }
        let must = |holds: bool, setting, must, than| match holds {
            true => Ok(()),
            false => Err(OwnError::Contradiction(BoundsError { setting, must, than })),
        };
        for setting in &SETTINGS {
            let Some(value) = *(setting.own)(&mut own) else { continue };
            let [min, max] = setting.bounds;
            must(value >= (setting.get)(&self.min), setting.name, AT_LEAST, min)?;
            must(value <= (setting.get)(&self.max), setting.name, AT_MOST, max)?;
        }
        let times = own.over(&self.usual);
        let [heartbeat, session, _] = &SETTINGS;
        let is_longer = times.session > times.heartbeat_interval;
        must(is_longer, session.name, "greater than", heartbeat.name)?;
        Ok(own)
    }

    /// For a group whose own settings are not known: its session is at least as long as any
    /// that it may have, so that no member is taken for dead too early.
    pub fn unknown(&self) -> Times {
        Times { session: self.usual.session.max(self.max.session), ..self.usual }
    }
}

/// What a group has of its own; `None`: the broker's.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Own {
    /// Its [`Times::session`] (`consumer.session.timeout.ms`).
    pub session: Option<Duration>,
    /// Its [`Times::heartbeat_interval`] (`consumer.heartbeat.interval.ms`).
    pub heartbeat_interval: Option<Duration>,
    /// Its [`Times::assignment_interval`] (`consumer.assignment.interval.ms`).
    pub assignment_interval: Option<Duration>,
}

impl Own {
    /// From what the cluster remembers, which the controller has checked. What this release does
    /// not know any more, or not yet, is passed over.
    pub fn of(overrides: &BTreeMap<String, String>) -> Own {
        let mut own = Own::default();
        for setting in &SETTINGS {
            let text = overrides.get(setting.name);
            *(setting.own)(&mut own) = text.and_then(|text| setting.parse(text).ok());
        }
        own
    }

    /// Its own, and `usual` for the others.
    pub fn over(&self, usual: &Times) -> Times {
        Times {
            session: self.session.unwrap_or(usual.session),
            heartbeat_interval: self.heartbeat_interval.unwrap_or(usual.heartbeat_interval),
            assignment_interval: self.assignment_interval.unwrap_or(usual.assignment_interval),
        }
    }

    /// What the group goes by on a broker with these bounds, which may have been others when its
    /// own were set (Kafka's `GroupConfig.evaluate`). `bounds` hold together.
    pub fn within(&self, bounds: &Bounds) -> Times {
        let (Bounds { usual, min, max }, of) = (bounds, self);
        let near =
            |own: Option<Duration>, usual, min, max| own.map_or(usual, |own| own.clamp(min, max));
        Times {
            session: near(of.session, usual.session, min.session, max.session),
            heartbeat_interval: near(
                of.heartbeat_interval,
                usual.heartbeat_interval,
                min.heartbeat_interval,
                max.heartbeat_interval,
            ),
            assignment_interval: near(
                of.assignment_interval,
                usual.assignment_interval,
                min.assignment_interval,
                max.assignment_interval,
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overrides(all: &[(&str, &str)]) -> BTreeMap<String, String> {
        all.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    fn millis(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// What `GroupConfig.validate` of Kafka 4.3.1 says, run on the same values.
    #[test]
    fn a_groups_own_are_checked_as_kafka_checks_them() {
        let kafka = Bounds::default();
        let mut short = kafka;
        (short.usual.session, short.min.session) = (millis(6_000), millis(1_000));
        let (session, heartbeat) =
            ("consumer.session.timeout.ms", "consumer.heartbeat.interval.ms");
        let assignment = "consumer.assignment.interval.ms";
        let bounds = |name: &str, must: &str, kind: &str| {
            let of = name.trim_start_matches("consumer.");
            format!("{name} must be {must} than or equal to group.consumer.{kind}.{of}")
        };
        let invalid = |value: &str, name: &str, why: &str| {
            format!("Invalid value {value} for configuration {name}: {why}")
        };
        let order = format!("{session} must be greater than {heartbeat}");
        let number = "Not a number of type INT";
        for (broker, name, value, expected) in [
            (&kafka, session, "45000", None),
            (&kafka, session, "60000", None),
            (&kafka, session, " 50000 ", None),
            (&kafka, session, "44999", Some(bounds(session, "greater", "min"))),
            (&kafka, session, "60001", Some(bounds(session, "less", "max"))),
            (&kafka, session, "0", Some(invalid("0", session, "Value must be at least 1"))),
            (&kafka, session, "x", Some(invalid("x", session, number))),
            (&kafka, session, "", Some(invalid("", session, number))),
            (&kafka, session, "99999999999", Some(invalid("99999999999", session, number))),
            (&kafka, heartbeat, "5000", None),
            (&kafka, heartbeat, "15000", None),
            (&kafka, heartbeat, "4999", Some(bounds(heartbeat, "greater", "min"))),
            (&kafka, heartbeat, "15001", Some(bounds(heartbeat, "less", "max"))),
            (&kafka, assignment, "0", None),
            (&kafka, assignment, "15000", None),
            (&kafka, assignment, "15001", Some(bounds(assignment, "less", "max"))),
            (&kafka, assignment, "-1", Some(invalid("-1", assignment, "Value must be at least 0"))),
            (&kafka, "nope", "1", Some("Unknown group config name: nope".into())),
            (
                &kafka,
                "share.session.timeout.ms",
                "45000",
                Some("Unknown group config name: share.session.timeout.ms".into()),
            ),
            // With the broker's for what the group does not say.
            (&short, heartbeat, "5999", None),
            (&short, heartbeat, "6000", Some(order.clone())),
            (&short, session, "5001", None),
            (&short, session, "5000", Some(order)),
        ] {
            let checked = broker.check_own(&overrides(&[(name, value)]));
            assert_eq!(checked.err().map(|error| error.to_string()), expected, "{name}={value}");
        }
    }

    #[test]
    fn a_brokers_times_are_checked_at_their_limits() {
        type Set = fn(&mut Bounds, Duration);
        assert_eq!(Bounds::default().check(), Ok(()));
        let cases: [(Set, u64, u64, &str); 7] = [
            (
                |b, at| b.max.heartbeat_interval = at,
                5_000,
                4_999,
                "group.consumer.max.heartbeat.interval.ms must be greater than or equal to \
                 group.consumer.min.heartbeat.interval.ms",
            ),
            (
                |b, at| b.usual.heartbeat_interval = at,
                15_000,
                15_001,
                "group.consumer.heartbeat.interval.ms must be less than or equal to \
                 group.consumer.max.heartbeat.interval.ms",
            ),
            (
                |b, at| b.usual.heartbeat_interval = at,
                5_000,
                4_999,
                "group.consumer.heartbeat.interval.ms must be greater than or equal to \
                 group.consumer.min.heartbeat.interval.ms",
            ),
            (
                |b, at| b.usual.session = at,
                45_000,
                44_999,
                "group.consumer.session.timeout.ms must be greater than or equal to \
                 group.consumer.min.session.timeout.ms",
            ),
            (
                |b, at| b.usual.session = at,
                60_000,
                60_001,
                "group.consumer.session.timeout.ms must be less than or equal to \
                 group.consumer.max.session.timeout.ms",
            ),
            (
                |b, at| {
                    (b.min.session, b.usual.session) = (Duration::ZERO, at);
                },
                5_001,
                5_000,
                "group.consumer.heartbeat.interval.ms must be less than \
                 group.consumer.session.timeout.ms",
            ),
            (
                |b, at| b.min.assignment_interval = at,
                1_000,
                1_001,
                "group.consumer.assignment.interval.ms must be greater than or equal to \
                 group.consumer.min.assignment.interval.ms",
            ),
        ];
        for (set, good, bad, expected) in cases {
            let mut bounds = Bounds::default();
            set(&mut bounds, millis(good));
            assert_eq!(bounds.check(), Ok(()), "{expected}");
            set(&mut bounds, millis(bad));
            assert_eq!(bounds.check().unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn what_the_bounds_allow_no_more_is_brought_near() {
        let own = Own::of(&overrides(&[
            ("consumer.session.timeout.ms", "50000"),
            ("consumer.heartbeat.interval.ms", "6000"),
            ("consumer.something.new", "1"),
        ]));
        let mut bounds = Bounds::default();
        let times = own.within(&bounds);
        assert_eq!((times.session, times.heartbeat_interval), (millis(50_000), millis(6_000)));
        assert_eq!(times.assignment_interval, millis(1_000), "the broker's");
        bounds.max.session = millis(48_000);
        bounds.min.heartbeat_interval = millis(7_000);
        let times = own.within(&bounds);
        assert_eq!((times.session, times.heartbeat_interval), (millis(48_000), millis(7_000)));
        assert_eq!(Own::default().within(&Bounds::default()), Bounds::default().usual);
        assert_eq!(Bounds::default().unknown().session, millis(60_000));
    }
}
