//! A client that blocks: requests one after the other on one connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::AnyError;

/// The header in which the server says when it had made an answer, in nanoseconds since the [`Epoch`].
pub(crate) const ANSWERED_AT: &str = "x-answered-at";

/// What both sides count from: they are in one process, and have one clock.
#[derive(Clone, Copy)]
pub(crate) struct Epoch(Instant);

impl Epoch {
    pub(crate) fn now() -> Epoch {
        Epoch(Instant::now())
    }

    pub(crate) fn nanos(self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }

    fn after(self, nanos: u64) -> Instant {
        self.0 + Duration::from_nanos(nanos)
    }
}

pub(crate) struct Client {
    epoch: Epoch,
    stream: TcpStream,
    buffer: Vec<u8>,
}

pub(crate) struct Response {
    pub(crate) status: u16,
    /// When the server had made it.
    pub(crate) answered_at: Instant,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr, epoch: Epoch) -> Result<Client, AnyError> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Client { epoch, stream, buffer: vec![0; 64 << 10] })
    }

    /// The answer, which is read to its end.
    pub(crate) fn ask(&mut self, path: &str) -> Result<Response, AnyError> {
        self.stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes())?;
        let mut nr_read = 0;
        let head_len = loop {
            nr_read += self.read_more(nr_read)?;
            if let Some(at) = self.buffer[..nr_read].windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
        };
        let head = Head(std::str::from_utf8(&self.buffer[..head_len])?);
        let response = Response { status: head.status()?, answered_at: self.epoch.after(head.number(ANSWERED_AT)?) };
        let len = head_len + head.number("content-length")? as usize;
        while nr_read < len {
            nr_read += self.read_more(nr_read)?;
        }
        Ok(response)
    }

    fn read_more(&mut self, from: usize) -> Result<usize, AnyError> {
        match self.stream.read(&mut self.buffer[from..])? {
            0 => Err("an answer has no end".into()),
            nr_read => Ok(nr_read),
        }
    }
}

struct Head<'a>(&'a str);

impl Head<'_> {
    fn status(&self) -> Result<u16, AnyError> {
        Ok(self.0.split(' ').nth(1).ok_or("an answer without a status")?.parse()?)
    }

    fn number(&self, name: &str) -> Result<u64, AnyError> {
        let fields = self.0.lines().filter_map(|line| line.split_once(':'));
        let field = fields.into_iter().find(|(field, _)| field.eq_ignore_ascii_case(name));
        Ok(field.ok_or_else(|| format!("an answer without {name}"))?.1.trim().parse()?)
    }
}
