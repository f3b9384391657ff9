//! Chooses what to run.

use std::process::ExitCode;

use net::cli::{Action, CliError, decide};
use net::{process, quorum_tool};

/// Blocks of the log are large and short-lived; glibc gives such memory back to the kernel and
/// takes it again page by page.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("RINGBOLT_LOG_FILTER")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,openraft=warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let hostname = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let hostname = hostname.unwrap_or_else(|| "localhost".into());
    match decide(std::env::args(), std::env::vars().collect(), hostname) {
        Ok(Action::Broker(resolved)) => process::run(*resolved),
        Ok(Action::Quorum(voters, task)) => match quorum_tool::run(&voters, &task) {
            Ok(text) => {
                println!("{text}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("ringbolt: {error}");
                ExitCode::FAILURE
            }
        },
        Ok(Action::Print(text)) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(CliError::Line(error)) => error.exit(),
        Err(error) => {
            eprintln!("ringbolt: {error}");
            ExitCode::FAILURE
        }
    }
}
