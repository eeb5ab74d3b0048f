//! What the driver asks of a worker, and what the worker answers. Both compile this file.
//!
//! The question is a list of words, `key=value`. Before it does anything, and between repetitions, a worker says that it waits, and goes
//! on when it is sent a byte; others run meanwhile. The answer is lines of words, the first of which says what the line is.
//! An answer ends with the line `end`: one without it is of a worker that died. A line of the answer that nobody knows is
//! an error: driver and worker are built from the same tree.
#![allow(dead_code, reason = "the driver writes what the worker reads, and the other way")]

use std::borrow::Cow;
use std::fmt::Write;

/// What a worker says when it waits for its turn: it has started, or is about to begin a repetition.
pub(crate) const AT_TURN: &str = "turn\n";
/// What it says when it waits until all are to rest at once.
pub(crate) const AT_REST: &str = "rest\n";

/// How a rival is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mode {
    /// In no group.
    Off,
    /// In a group without a limit.
    On,
    /// In a group with a limit far away, whose parent has one as well.
    Limit,
    /// A heap or an arena of its own for each tenant.
    Heaps,
}

/// How long to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// As little as shows that everything works. No figure of it means anything.
    Tiny,
    /// Some minutes for everything.
    Quick,
    /// What figures should be quoted from.
    Full,
}

/// What a worker is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) workload: String,
    /// What the workload varies from process to process; `-` if nothing.
    pub(crate) variant: String,
    pub(crate) mode: Mode,
    pub(crate) scale: Scale,
    /// Whether to look at memory again after a while, where the workload does.
    pub(crate) rests: bool,
    pub(crate) seed: u64,
}

/// Times of one kind of operation, one for each repetition.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Case {
    /// Without blanks.
    pub(crate) name: Name,
    pub(crate) ns: Vec<f64>,
}

/// What a worker found.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Answer {
    /// How it is known that the rival served.
    pub(crate) proof: String,
    /// Most bytes resident, without the worker's own arrays.
    pub(crate) peak_bytes: u64,
    pub(crate) cases: Vec<Case>,
    /// Bytes at moments that have names.
    pub(crate) points: Vec<(Name, u64)>,
}

/// Names are constants where a `String` would come from the allocator under test.
pub(crate) type Name = Cow<'static, str>;

impl Mode {
    pub(crate) const ALL: [Mode; 4] = [Mode::Off, Mode::On, Mode::Limit, Mode::Heaps];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Mode::Off => "off",
            Mode::On => "on",
            Mode::Limit => "limit",
            Mode::Heaps => "heaps",
        }
    }
}

impl Scale {
    pub(crate) const ALL: [Scale; 3] = [Scale::Tiny, Scale::Quick, Scale::Full];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Scale::Tiny => "tiny",
            Scale::Quick => "quick",
            Scale::Full => "full",
        }
    }
}

impl Job {
    /// The job as arguments of a worker.
    pub(crate) fn encode(&self) -> Vec<String> {
        vec![
            format!("workload={}", self.workload),
            format!("variant={}", self.variant),
            format!("mode={}", self.mode.name()),
            format!("scale={}", self.scale.name()),
            format!("rests={}", self.rests),
            format!("seed={}", self.seed),
        ]
    }

    /// The job that the arguments of a worker ask for.
    pub(crate) fn decode(words: &[String]) -> Result<Job, String> {
        let value = |key: &str| {
            let found = words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
            found.ok_or_else(|| format!("no {key}=… in the job"))
        };
        let mode = value("mode")?;
        let scale = value("scale")?;
        Ok(Job {
            workload: value("workload")?.to_owned(),
            variant: value("variant")?.to_owned(),
            mode: by_name(Mode::ALL, Mode::name, mode).ok_or_else(|| format!("no mode {mode}"))?,
            scale: by_name(Scale::ALL, Scale::name, scale).ok_or_else(|| format!("no scale {scale}"))?,
            rests: value("rests")?.parse().map_err(|error| format!("rests: {error}"))?,
            seed: value("seed")?.parse().map_err(|error| format!("seed: {error}"))?,
        })
    }
}

impl Answer {
    /// The answer as the text that a worker prints.
    pub(crate) fn encode(&self) -> String {
        let mut text = format!("proof {}\npeak {}\n", self.proof, self.peak_bytes);
        for case in &self.cases {
            write!(text, "case {}", case.name).expect("a String takes all");
            for ns in &case.ns {
                write!(text, " {ns}").expect("a String takes all");
            }
            text.push('\n');
        }
        for (name, bytes) in &self.points {
            writeln!(text, "point {name} {bytes}").expect("a String takes all");
        }
        text.push_str("end\n");
        text
    }

    /// The answer in what a worker printed.
    pub(crate) fn decode(text: &str) -> Result<Answer, String> {
        let mut answer = Answer::default();
        for line in text.lines() {
            let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
            match kind {
                "proof" => answer.proof = rest.to_owned(),
                "peak" => answer.peak_bytes = number(rest)?,
                "case" => answer.cases.push(case(rest)?),
                "point" => {
                    let (name, bytes) = rest.split_once(' ').ok_or_else(|| format!("half a point: {line}"))?;
                    answer.points.push((name.to_owned().into(), number(bytes)?));
                }
                "end" => return Ok(answer),
                _ => return Err(format!("a line that nobody knows: {line}")),
            }
        }
        Err("the answer has no end".to_owned())
    }
}

fn case(line: &str) -> Result<Case, String> {
    let mut words = line.split(' ');
    let name = words.next().filter(|name| !name.is_empty()).ok_or("a case without a name")?;
    let ns = words.map(number).collect::<Result<Vec<f64>, String>>()?;
    if ns.is_empty() || ns.iter().any(|ns| !ns.is_finite()) {
        return Err(format!("no times in case {name}"));
    }
    Ok(Case { name: name.to_owned().into(), ns })
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("not a number: {text}"))
}

fn by_name<T: Copy, const N: usize>(all: [T; N], name: fn(T) -> &'static str, wanted: &str) -> Option<T> {
    all.into_iter().find(|choice| name(*choice) == wanted)
}
