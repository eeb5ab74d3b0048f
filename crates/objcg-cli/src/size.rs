//! Sizes on the command line.

/// Bytes, with a unit of 1024 or without.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let nr_bytes = parse_size::Config::new().with_binary().parse_size(text);
    match nr_bytes {
        Ok(0) => Err("a limit of nothing; a program needs some memory to start".to_owned()),
        Ok(nr_bytes) => Ok(nr_bytes),
        Err(_) => Err("not a size: a number of bytes, or one with K, M, G or T, such as 256M".to_owned()),
    }
}
