//! The text of `OBJCG_OPTIONS`. Nothing panics; what is complained of is left out and nothing else is; the settings written as words
//! are read back as the same; a word stands for the same wherever it stands, and the last one of a name wins.

#![no_main]

use libfuzzer_sys::fuzz_target;
use objcg_core::faults::MILLION;
use objcg_core::options::{Settings, parse};

fuzz_target!(|text: &[u8]| {
    let is_between = |byte: &u8| matches!(byte, b':' | b',') || byte.is_ascii_whitespace();
    let mut refused = Vec::new();
    let settings = parse(text, |word, problem| refused.push((word.to_vec(), problem)));
    assert!(settings.fail_os_millionths <= MILLION && settings.fail_charge_millionths <= MILLION);

    let mut left = refused.iter();
    let mut next = left.next();
    let mut good = Vec::new();
    for word in text.split(is_between).filter(|word| !word.is_empty()) {
        // By itself it is refused for the same reason, or taken.
        let mut alone = None;
        parse(word, |same, problem| assert!(same == word && alone.replace(problem).is_none()));
        match alone {
            Some(problem) => {
                assert_eq!(next.map(|(word, problem)| (word.as_slice(), *problem)), Some((word, problem)));
                next = left.next();
            }
            None => good.push(word),
        }
    }
    assert!(next.is_none(), "complaints are of words of the text, in their order");

    let taken = |text: &[u8]| parse(text, |word, problem| panic!("{problem:?}: {}", word.escape_ascii()));
    assert_eq!(taken(&good.join(&b", "[..])), settings, "what was refused has changed nothing");
    // Twice the same, and the last of a name wins.
    assert_eq!(taken(&[&good[..], &good[..]].concat().join(&b':')), settings);
    assert_eq!(taken(written(&settings).as_bytes()), settings);
});

/// Settings as words: every name, with its value.
fn written(settings: &Settings) -> String {
    let Settings { poison, redzone, guard_pages, random, stack, quarantine_bytes, fail_os, fail_charge, seed, .. } =
        *settings;
    let switches =
        [("poison", poison), ("redzone", redzone), ("guard_pages", guard_pages), ("random", random), ("stack", stack)];
    let switches = switches.map(|(name, is_on)| format!("{name}={}", u8::from(is_on))).join(":");
    let share = |millionths: u32| format!("{}.{:06}", millionths / MILLION, millionths % MILLION);
    format!(
        "{switches}:quarantine={quarantine_bytes}:fail_os={fail_os}:fail_charge={fail_charge}:seed={seed}:\
         fail_os_probability={}:fail_charge_probability={}",
        share(settings.fail_os_millionths),
        share(settings.fail_charge_millionths),
    )
}
