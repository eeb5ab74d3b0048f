//! Tests of the protocol, which the driver keeps for both sides.

use crate::protocol::{Answer, Case, Job, Mode, Scale};

fn job() -> Job {
    let (workload, variant) = ("tenants".to_owned(), "1000x2".to_owned());
    Job { workload, variant, mode: Mode::Limit, scale: Scale::Quick, rests: true, seed: 7 }
}

fn answer() -> Answer {
    Answer {
        proof: "words, with blanks: 1 = 1".to_owned(),
        peak_bytes: 4096,
        cases: vec![
            Case { name: "16".into(), ns: vec![3.25, 1e-3] },
            Case { name: "all".into(), ns: vec![905_240.333] },
        ],
        points: vec![("half-live".into(), 0), ("after".into(), u64::MAX)],
    }
}

#[test]
fn a_job_arrives_as_it_was_sent() {
    assert_eq!(Job::decode(&job().encode()), Ok(job()));
    for (mode, scale) in Mode::ALL.iter().flat_map(|mode| Scale::ALL.map(|scale| (*mode, scale))) {
        let job = Job { mode, scale, ..job() };
        assert_eq!(Job::decode(&job.encode()), Ok(job));
    }
}

#[test]
fn a_job_with_something_missing_or_unknown_is_refused() {
    for at in 0..job().encode().len() {
        let mut words = job().encode();
        let word = words.remove(at);
        let key = word.split('=').next().unwrap();
        assert_eq!(Job::decode(&words), Err(format!("no {key}=… in the job")));
    }
    let changed = |from: &str, to: &str| {
        let words: Vec<_> = job().encode().iter().map(|word| word.replace(from, to)).collect();
        Job::decode(&words).unwrap_err()
    };
    assert_eq!(changed("mode=limit", "mode=half"), "no mode half");
    assert_eq!(changed("scale=quick", "scale=huge"), "no scale huge");
    assert!(changed("rests=true", "rests=1").starts_with("rests: "));
    assert!(changed("seed=7", "seed=x").starts_with("seed: "));
}

#[test]
fn an_answer_arrives_as_it_was_sent() {
    assert_eq!(Answer::decode(&answer().encode()), Ok(answer()));
}

#[test]
fn half_an_answer_is_refused() {
    let text = answer().encode();
    let lines: Vec<_> = text.lines().collect();
    for nr_lines in 0..lines.len() {
        assert_eq!(Answer::decode(&lines[..nr_lines].join("\n")), Err("the answer has no end".to_owned()));
    }
}

#[test]
fn an_answer_that_makes_no_sense_is_refused() {
    for line in ["peak much", "case", "case 16", "case 16 NaN", "case 16 inf", "case 16 1 x", "point after", "note 1"] {
        let refusal = Answer::decode(&format!("{line}\nend\n"));
        assert!(refusal.is_err(), "{line}: {refusal:?}");
    }
}
