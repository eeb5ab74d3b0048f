//! The load: good requests at a steady rate, on a thread of their own, with rounds in which the bad tenants do what they do.
//!
//! A good request has a time at which it is due; its latency counts from then, so a server that stands still is not asked less.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep, sleep_until};

use crate::AnyError;

/// Connections of good clients, and how often each asks.
const NR_CONNECTIONS: u32 = 8;
const INTERVAL: Duration = Duration::from_millis(8);
/// Values that a good tenant asks for: about half of them fit its cache.
const NR_KEYS: u64 = 256;
/// Between two rounds, for what was asked to be answered.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two requests of a bad tenant.
const RETRY: Duration = Duration::from_millis(1);

/// What the bad tenants do, in the order of their numbers; the good ones come after them.
pub(crate) const BAD: [&str; 3] = ["leak", "huge", "spawn"];

pub(crate) struct Plan {
    pub(crate) nr_tenants: usize,
    /// Pairs of a quiet and a noisy round.
    pub(crate) nr_pairs: usize,
    pub(crate) round: Duration,
}

/// How many answers there were of each status; 0 for none at all.
pub(crate) type Answers = BTreeMap<u16, u64>;

/// A good request that was answered.
pub(crate) struct Answer {
    pub(crate) tenant: usize,
    pub(crate) status: u16,
    pub(crate) latency: Duration,
}

/// The answers of a round without the bad tenants, and of one with them.
pub(crate) struct Pair {
    pub(crate) quiet: Vec<Answer>,
    pub(crate) noisy: Vec<Answer>,
}

pub(crate) struct Outcome {
    pub(crate) pairs: Vec<Pair>,
    /// Of each bad tenant.
    pub(crate) bad: Vec<Answers>,
}

/// What the clients share; they are on one thread.
struct Clients {
    address: SocketAddr,
    nr_tenants: usize,
    /// Whether the bad tenants do what they do.
    is_noisy: Cell<bool>,
    is_over: Cell<bool>,
    nr_asked: Cell<u64>,
}

/// Runs the whole plan, and tells `progress` of each pair of rounds. Blocks.
pub(crate) fn run(plan: &Plan, address: SocketAddr, progress: impl FnMut(usize)) -> Result<Outcome, AnyError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, play(plan, address, progress))
}

async fn play(plan: &Plan, address: SocketAddr, mut progress: impl FnMut(usize)) -> Result<Outcome, AnyError> {
    let clients = Rc::new(Clients {
        address,
        nr_tenants: plan.nr_tenants,
        is_noisy: Cell::new(false),
        is_over: Cell::new(false),
        nr_asked: Cell::new(0),
    });
    // Fills the caches.
    good_round(&clients, plan.round).await?;
    let bad = BAD.iter().enumerate().map(|(number, _)| spawn_local(bad_client(Rc::clone(&clients), number)));
    let bad = bad.collect::<Vec<_>>();
    let mut pairs = Vec::new();
    for number in 0..plan.nr_pairs {
        progress(number);
        let quiet = good_round(&clients, plan.round).await?;
        clients.is_noisy.set(true);
        let noisy = good_round(&clients, plan.round).await?;
        clients.is_noisy.set(false);
        sleep(PAUSE).await;
        pairs.push(Pair { quiet, noisy });
    }
    clients.is_over.set(true);
    let mut outcome = Outcome { pairs, bad: Vec::new() };
    for client in bad {
        outcome.bad.push(client.await??);
    }
    Ok(outcome)
}

async fn good_round(clients: &Rc<Clients>, round: Duration) -> Result<Vec<Answer>, AnyError> {
    let start = Instant::now();
    let connections = (0..NR_CONNECTIONS).map(|number| {
        let first = start + INTERVAL * number / NR_CONNECTIONS;
        spawn_local(good_client(Rc::clone(clients), first, start + round))
    });
    let connections = connections.collect::<Vec<_>>();
    let mut answers = Vec::new();
    for connection in connections {
        answers.extend(connection.await??);
    }
    Ok(answers)
}

/// Asks for values of one good tenant after the other, on one connection.
async fn good_client(clients: Rc<Clients>, first: Instant, end: Instant) -> Result<Vec<Answer>, AnyError> {
    let mut connection = connect(clients.address).await?;
    let mut answers = Vec::new();
    let mut due = first;
    while due < end {
        sleep_until(due).await;
        let number = clients.nr_asked.replace(clients.nr_asked.get() + 1);
        let nr_good = (clients.nr_tenants - BAD.len()) as u64;
        let tenant = BAD.len() + (number % nr_good) as usize;
        // Scattered over the keys, in the same order each time.
        let key = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32 & (NR_KEYS - 1);
        let status = ask(&mut connection, &format!("/{tenant}/read/{key}")).await?;
        answers.push(Answer { tenant, status, latency: due.elapsed() });
        due += INTERVAL;
    }
    Ok(answers)
}

/// Does the same over and over while it is noisy.
async fn bad_client(clients: Rc<Clients>, number: usize) -> Result<Answers, AnyError> {
    let mut connection = connect(clients.address).await?;
    let mut answers = Answers::new();
    while !clients.is_over.get() {
        if clients.is_noisy.get() {
            let status = ask(&mut connection, &format!("/{number}/{}", BAD[number])).await?;
            *answers.entry(status).or_default() += 1;
        }
        sleep(RETRY).await;
    }
    Ok(answers)
}

async fn connect(address: SocketAddr) -> Result<SendRequest<Body>, AnyError> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    spawn_local(connection);
    Ok(sender)
}

/// The status of the answer, which is read to its end.
async fn ask(connection: &mut SendRequest<Body>, path: &str) -> Result<u16, AnyError> {
    connection.ready().await?;
    let request = Request::get(path).header("host", "localhost").body(Body::empty())?;
    let response = connection.send_request(request).await?;
    let status = response.status().as_u16();
    response.into_body().collect().await?;
    Ok(status)
}
