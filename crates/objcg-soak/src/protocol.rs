//! What `objcg-bench soak` asks of this process, and the lines that it prints. Both compile this file.
//!
//! The question is words, `key=value`. The answer is a `sample` line for each second, then one `end` line; an answer without
//! it is of a process that died.
#![allow(dead_code, reason = "the one writes what the other reads")]

/// How to soak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) nr_seconds: u32,
    pub(crate) seed: u64,
    /// Bytes to lose each second: shows that a leak is found.
    pub(crate) leak_bytes: usize,
}

/// What was done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) requests: u64,
    /// Objects that were allocated.
    pub(crate) allocations: u64,
    /// Allocations and groups that a limit refused.
    pub(crate) refusals: u64,
    pub(crate) tenants: u64,
    pub(crate) bursts: u64,
    pub(crate) forks: u64,
    pub(crate) threads: u64,
    /// Objects whose content was compared at quiet points.
    pub(crate) compared: u64,
}

/// What was found at a quiet point; bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) second: u64,
    pub(crate) resident: u64,
    /// What the engine holds of the operating system.
    pub(crate) held: u64,
    /// What the server's live objects take.
    pub(crate) live: u64,
    pub(crate) usage: u64,
    pub(crate) vessels: u64,
    pub(crate) pause_us: u64,
    pub(crate) counts: Counts,
}

/// A line of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Sample(Sample),
    /// The end: all counts, and the bytes that the engine still held.
    End(Counts, u64),
}

impl Order {
    /// The order as arguments of the process.
    pub(crate) fn encode(&self) -> [String; 3] {
        [format!("seconds={}", self.nr_seconds), format!("seed={}", self.seed), format!("leak={}", self.leak_bytes)]
    }

    /// The order in the arguments of the process.
    pub(crate) fn decode(words: &[String]) -> Result<Order, String> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let order = Order {
            nr_seconds: value(&words, "seconds")?,
            seed: value(&words, "seed")?,
            leak_bytes: value(&words, "leak")?,
        };
        if order.nr_seconds == 0 { Err("seconds=0 is no time".to_owned()) } else { Ok(order) }
    }
}

impl Counts {
    fn words(&self) -> String {
        let Counts { requests, allocations, refusals, tenants, bursts, forks, threads, compared } = self;
        format!(
            "requests={requests} allocations={allocations} refusals={refusals} tenants={tenants} bursts={bursts} \
             forks={forks} threads={threads} compared={compared}"
        )
    }

    fn decode(words: &[&str]) -> Result<Counts, String> {
        Ok(Counts {
            requests: value(words, "requests")?,
            allocations: value(words, "allocations")?,
            refusals: value(words, "refusals")?,
            tenants: value(words, "tenants")?,
            bursts: value(words, "bursts")?,
            forks: value(words, "forks")?,
            threads: value(words, "threads")?,
            compared: value(words, "compared")?,
        })
    }

    /// The last line.
    pub(crate) fn encode_end(&self, held_bytes: u64) -> String {
        format!("end held={held_bytes} {}", self.words())
    }
}

impl Sample {
    pub(crate) fn encode(&self) -> String {
        let Sample { second, resident, held, live, usage, vessels, pause_us, counts } = self;
        format!(
            "sample second={second} resident={resident} held={held} live={live} usage={usage} vessels={vessels} \
             pause_us={pause_us} {}",
            counts.words()
        )
    }
}

impl Line {
    pub(crate) fn decode(line: &str) -> Result<Line, String> {
        let mut words = line.split(' ');
        let kind = words.next().unwrap_or_default();
        let words: Vec<&str> = words.collect();
        match kind {
            "sample" => Ok(Line::Sample(Sample {
                second: value(&words, "second")?,
                resident: value(&words, "resident")?,
                held: value(&words, "held")?,
                live: value(&words, "live")?,
                usage: value(&words, "usage")?,
                vessels: value(&words, "vessels")?,
                pause_us: value(&words, "pause_us")?,
                counts: Counts::decode(&words)?,
            })),
            "end" => Ok(Line::End(Counts::decode(&words)?, value(&words, "held")?)),
            _ => Err(format!("a line that nobody knows: {line}")),
        }
    }
}

fn value<T: std::str::FromStr>(words: &[&str], key: &str) -> Result<T, String> {
    let found = words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    let text = found.ok_or_else(|| format!("no {key}=…"))?;
    text.parse().map_err(|_| format!("{key}: not a number: {text}"))
}
