//! Sizes on the command line.

/// Digits that fit 64 bits, whatever they are; with more the library's arithmetic goes around.
const MAX_DIGITS: usize = 18;

/// Bytes, with a unit of 1024 or without.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let nr_digits = text.bytes().filter(u8::is_ascii_digit).count();
    let parsed = (nr_digits <= MAX_DIGITS).then(|| parse_size::Config::new().with_binary().parse_size(text));
    match parsed {
        Some(Ok(0)) => Err("a limit of nothing; a program needs some memory to start".to_owned()),
        Some(Ok(nr_bytes)) => Ok(nr_bytes),
        _ => Err("not a size: a number of bytes, or one with K, M, G or T, such as 256M".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_read_and_nonsense_is_not() {
        assert_eq!(size("256M"), Ok(256 << 20));
        assert_eq!(size("1.5 KiB"), Ok(1536));
        for nonsense in ["", "0", "M", "-1", "00000.00000000018446744073709551615 96", "99999999999999999999"] {
            assert!(size(nonsense).is_err(), "{nonsense:?}");
        }
    }
}
