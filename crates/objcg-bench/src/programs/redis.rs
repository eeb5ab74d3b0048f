//! Redis: the server is measured, the time is what redis-benchmark takes.

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::executables;
use super::process::Usage;
use super::session::{Running, Served, Session};
use crate::workers::first_lines;

const SOCKET: &str = "redis.sock";
const START: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(5);

/// Many small requests at a time, so that the time is the server's more than that of system calls.
const SMALL: &[&str] =
    &["-n", "100000", "-P", "16", "-t", "ping,set,get,incr,lpush,rpush,lpop,rpop,sadd,hset,spop,zadd,zpopmin,mset"];
/// Replies of hundreds of objects, one request at a time.
const LARGE: &[&str] = &["-n", "10000", "-t", "lrange"];

pub(crate) fn run(session: &mut Session<'_>) -> Result<()> {
    let mut command = session.command(&executables::REDIS_SERVER);
    command.args(["--port", "0", "--unixsocket", SOCKET, "--save", "", "--appendonly", "no"]);
    let server = session.start(command, Served::Measured)?;
    wait_for_socket(session, &server)?;
    for arguments in [SMALL, LARGE] {
        let mut command = session.command(&executables::REDIS_BENCHMARK);
        command.args(["-s", SOCKET, "-q", "-r", "100000"]).args(arguments);
        let mut usage = session.succeed(command, Served::Plain)?.usage;
        // CPU time and memory are the server's, which come at its end.
        (usage.cpu, usage.peak_bytes) = (Duration::ZERO, 0);
        session.count(usage);
    }
    let info = ask(session, &["info"])?;
    let nr_errors = field(&info, "total_error_replies");
    ensure!(nr_errors == Some("0"), "redis-server gave {} errors", nr_errors.unwrap_or("an unknown number of"));
    let nr_requests = field(&info, "total_commands_processed").unwrap_or("an unknown number of");
    let used = field(&info, "used_memory_human").unwrap_or("?");
    session.note(format!("{nr_requests} requests, {used} used at the end"));

    ask(session, &["shutdown", "nosave"])?;
    let server = session.finish(server)?;
    ensure!(server.status.success(), "redis-server: {}: {}", server.status, first_lines(server.stdout.as_bytes()));
    session.count(Usage { elapsed: Duration::ZERO, ..server.usage });
    Ok(())
}

fn wait_for_socket(session: &Session<'_>, server: &Running) -> Result<()> {
    let socket = session.path(SOCKET);
    let start = Instant::now();
    while UnixStream::connect(&socket).is_err() {
        // In place of a pause: it is over at once if the server is.
        ensure!(!server.ends_within(PAUSE)?, "redis-server ends at once: {}", session.said(server));
        ensure!(start.elapsed() < START, "redis-server does not listen");
    }
    Ok(())
}

fn ask(session: &mut Session<'_>, question: &[&str]) -> Result<String> {
    let mut command = session.command(&executables::REDIS_CLI);
    command.args(["-s", SOCKET]).args(question);
    Ok(session.succeed(command, Served::Plain)?.stdout)
}

/// The value of a line `name:value`.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'))
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let info = "# Stats\r\ntotal_errors:7\r\ntotal:3\r\n";
        assert_eq!(
            (field(info, "total"), field(info, "total_errors"), field(info, "tot")),
            (Some("3"), Some("7"), None)
        );
    }
}
