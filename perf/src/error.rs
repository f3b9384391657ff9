//! Why a measurement did not come about.

use std::io;
use std::path::PathBuf;

use net::client::ClientError;
use net::wire::ErrorCode;

/// Anything that ends a run.
#[derive(Debug, thiserror::Error)]
pub enum PerfError {
    /// The system refused something outside of a connection.
    #[error("{what}: {source}")]
    System {
        /// What was being done.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A connection to a broker.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The broker said no.
    #[error("{what}: {error}")]
    Refused {
        /// What it was asked for.
        what: String,
        /// Its answer.
        error: ErrorCode,
    },
    /// The broker that was started here.
    #[error("broker: {0}")]
    Broker(String),
    /// The options do not go together, or ask for something impossible.
    #[error("{0}")]
    Usage(String),
    /// What was measured cannot be right: records lost, out of order, of another length.
    #[error("{0}")]
    Wrong(String),
    /// A log of the engine.
    #[error("the log in {}: {why}", dir.display())]
    Log {
        /// Its directory.
        dir: PathBuf,
        /// What it said.
        why: String,
    },
}

/// Names what was being done when the system refused.
pub fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> PerfError {
    let what = what.into();
    move |source| PerfError::System { what, source }
}

/// `Ok` for no error, else the refusal of `what`.
pub fn accepted(what: impl Into<String>, error: ErrorCode) -> Result<(), PerfError> {
    match error {
        ErrorCode::None => Ok(()),
        error => Err(PerfError::Refused { what: what.into(), error }),
    }
}
