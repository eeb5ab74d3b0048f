//! The words of `OBJCG_OPTIONS`: `name=value` pairs between colons, commas or blanks. Policy only: text in, settings out.

use super::Settings;
use crate::faults::MILLION;

/// What is wrong with a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// There is no option of that name.
    Unknown,
    /// The option is there, but not with this value.
    Value,
}

/// Reads a text as `OBJCG_OPTIONS` would be; `complain` is called with each word that says nothing, which is left out. Later
/// words win. Linear in the text, and allocates nothing.
///
/// ```
/// use objcg_core::options::{Problem, parse};
///
/// let mut complaints = Vec::new();
/// let settings = parse(b"poison:quarantine=64k:posion=1", |word, problem| complaints.push((word.to_vec(), problem)));
/// assert!(settings.poison && settings.quarantine_bytes == 65536);
/// assert_eq!(complaints, [(b"posion=1".to_vec(), Problem::Unknown)]);
/// ```
pub fn parse(text: &[u8], mut complain: impl FnMut(&[u8], Problem)) -> Settings {
    let mut settings = Settings::NONE;
    let is_between = |byte: &u8| matches!(byte, b':' | b',') || byte.is_ascii_whitespace();
    for word in text.split(is_between).filter(|word| !word.is_empty()) {
        if let Err(problem) = settings.take(word) {
            complain(word, problem);
        }
    }
    settings
}

impl Settings {
    fn take(&mut self, word: &[u8]) -> Result<(), Problem> {
        let equals = word.iter().position(|byte| *byte == b'=');
        let (name, value) = match equals {
            Some(at) => (&word[..at], Some(&word[at + 1..])),
            None => (word, None),
        };
        match name {
            b"poison" => self.poison = switch(value)?,
            b"redzone" => self.redzone = switch(value)?,
            b"guard_pages" => self.guard_pages = switch(value)?,
            b"random" => self.random = switch(value)?,
            b"stack" => self.stack = switch(value)?,
            b"slub_debug" => self.take_letters(value)?,
            b"quarantine" => self.quarantine_bytes = size(value)?,
            b"fail_os" => self.fail_os = number(value)?,
            b"fail_charge" => self.fail_charge = number(value)?,
            b"fail_os_probability" => self.fail_os_millionths = millionths(value)?,
            b"fail_charge_probability" => self.fail_charge_millionths = millionths(value)?,
            b"seed" => self.seed = number(value)?,
            _ => return Err(Problem::Unknown),
        }
        Ok(())
    }

    /// The kernel's letters: Z red zones, P poison, U the allocation's stack; F, the checks that are always on here.
    fn take_letters(&mut self, letters: Option<&[u8]>) -> Result<(), Problem> {
        let letters = letters.unwrap_or(b"FZPU");
        if !letters.iter().all(|letter| b"FZPU".contains(letter)) {
            return Err(Problem::Value);
        }
        self.redzone |= letters.contains(&b'Z');
        self.poison |= letters.contains(&b'P');
        self.stack |= letters.contains(&b'U');
        Ok(())
    }
}

/// A name alone switches on.
fn switch(value: Option<&[u8]>) -> Result<bool, Problem> {
    match value {
        None | Some(b"1" | b"true" | b"yes" | b"on") => Ok(true),
        Some(b"0" | b"false" | b"no" | b"off") => Ok(false),
        Some(_) => Err(Problem::Value),
    }
}

fn number(value: Option<&[u8]>) -> Result<u64, Problem> {
    let digits = value.filter(|digits| digits.first().is_some_and(u8::is_ascii_digit)).ok_or(Problem::Value)?;
    core::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).ok_or(Problem::Value)
}

/// Bytes, with `k`, `m` or `g` behind for powers of 1024.
fn size(value: Option<&[u8]>) -> Result<usize, Problem> {
    let value = value.ok_or(Problem::Value)?;
    let (digits, shift) = match value.split_last() {
        Some((b'k' | b'K', digits)) => (digits, 10),
        Some((b'm' | b'M', digits)) => (digits, 20),
        Some((b'g' | b'G', digits)) => (digits, 30),
        _ => (value, 0),
    };
    let nr_bytes = number(Some(digits))?.checked_mul(1 << shift).ok_or(Problem::Value)?;
    usize::try_from(nr_bytes).map_err(|_| Problem::Value)
}

/// `0.001` in millionths: at most six digits behind the point, at most 1.
fn millionths(value: Option<&[u8]>) -> Result<u32, Problem> {
    let value = value.ok_or(Problem::Value)?;
    let (whole, fraction) = match value.iter().position(|byte| *byte == b'.') {
        Some(at) => (&value[..at], &value[at + 1..]),
        None => (value, &value[value.len()..]),
    };
    if fraction.len() > 6 || !fraction.iter().all(u8::is_ascii_digit) {
        return Err(Problem::Value);
    }
    let padded = fraction.iter().copied().chain(core::iter::repeat(b'0')).take(6);
    let fraction = padded.fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    match number(Some(whole))? {
        0 => Ok(fraction),
        1 if fraction == 0 => Ok(MILLION),
        _ => Err(Problem::Value),
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::super::Settings;
    use super::{Problem, parse};

    fn read(text: &str) -> Settings {
        parse(text.as_bytes(), |word, problem| panic!("{problem:?}: {}", word.escape_ascii()))
    }

    fn complaints(text: &str) -> Vec<Problem> {
        let mut found = Vec::new();
        assert_eq!(parse(text.as_bytes(), |_, problem| found.push(problem)), Settings::NONE, "{text} is left out");
        found
    }

    #[test]
    fn a_name_alone_switches_on_and_the_last_word_wins() {
        let settings = read("poison:redzone=yes,random=1 stack guard_pages=true");
        assert!(settings.poison && settings.redzone && settings.random && settings.stack && settings.guard_pages);
        assert_eq!(read("poison:poison=0"), Settings::NONE);
        assert_eq!(read("::, "), Settings::NONE);
    }

    #[test]
    fn the_kernels_letters_are_known() {
        assert_eq!(read("slub_debug=ZPU"), read("redzone:poison:stack"));
        assert_eq!(read("slub_debug"), read("redzone:poison:stack"));
        assert_eq!(read("slub_debug=F"), Settings::NONE);
        assert_eq!(complaints("slub_debug=ZX"), [Problem::Value]);
    }

    #[test]
    fn sizes_have_units_and_do_not_overflow() {
        assert_eq!(read("quarantine=12").quarantine_bytes, 12);
        assert_eq!(read("quarantine=3m").quarantine_bytes, 3 << 20);
        for text in ["quarantine", "quarantine=", "quarantine=k", "quarantine=-1", "quarantine=18446744073709551615k"] {
            assert_eq!(complaints(text), [Problem::Value], "{text}");
        }
    }

    #[test]
    fn probabilities_are_exact_to_a_millionth() {
        for (text, expected) in [("0.000001", 1), ("0.5", 500_000), ("1", 1_000_000), ("0.", 0), ("1.0", 1_000_000)] {
            assert_eq!(read(&std::format!("fail_os_probability={text}")).fail_os_millionths, expected, "{text}");
        }
        for text in ["1.1", "2", ".5", "0.0000001", "0.x", "-0.5"] {
            assert_eq!(complaints(&std::format!("fail_charge_probability={text}")), [Problem::Value], "{text}");
        }
    }

    #[test]
    fn unknown_names_are_complained_of() {
        assert_eq!(complaints("posion"), [Problem::Unknown]);
        assert_eq!(complaints("=1"), [Problem::Unknown]);
        assert_eq!(complaints("fail_os=+1"), [Problem::Value]);
    }
}
