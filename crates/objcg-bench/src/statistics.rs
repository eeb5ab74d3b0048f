//! Medians and means.

/// The value in the middle, or between the two in the middle; `None` of nothing.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (upper, lower) = (sorted.get(sorted.len() / 2)?, sorted.get(sorted.len().checked_sub(1)? / 2)?);
    Some(f64::midpoint(*lower, *upper))
}

/// The least; `None` of nothing.
pub(crate) fn least(values: &[f64]) -> Option<f64> {
    values.iter().copied().min_by(f64::total_cmp)
}

/// The geometric mean; `None` of nothing.
pub(crate) fn geometric_mean(values: &[f64]) -> Option<f64> {
    let nr_values = u32::try_from(values.len()).ok().filter(|nr_values| *nr_values > 0)?;
    Some((values.iter().map(|value| value.ln()).sum::<f64>() / f64::from(nr_values)).exp())
}

/// The median of the ratios of those values that both have, by their number.
pub(crate) fn paired_ratio(of: &[(u32, f64)], against: &[(u32, f64)]) -> Option<f64> {
    let ratio = |(number, value): &(u32, f64)| {
        let (_, base) = against.iter().find(|(other, _)| other == number)?;
        (*base > 0.0).then(|| value / base)
    };
    median(&of.iter().filter_map(ratio).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::{geometric_mean, least, median, paired_ratio};

    #[test]
    fn medians_of_odd_and_even_numbers_of_values() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 100.0]), Some(3.0));
    }

    #[test]
    fn least_and_geometric_mean() {
        assert_eq!(least(&[2.0, 1.0, 3.0]), Some(1.0));
        assert_eq!(least(&[]), None);
        assert!((geometric_mean(&[1.0, 4.0, 2.0]).unwrap() - 2.0).abs() < 1e-12);
        assert_eq!(geometric_mean(&[]), None);
    }

    #[test]
    fn ratios_are_taken_within_rounds() {
        // The second round was slow for both: the ratio of medians would be 2.5.
        let of = [(0, 2.0), (1, 20.0), (2, 5.0)];
        let against = [(0, 1.0), (1, 10.0), (2, 2.0)];
        assert_eq!(paired_ratio(&of, &against), Some(2.0));
        // A round that one of them missed does not count.
        assert_eq!(paired_ratio(&of, &against[1..2]), Some(2.0));
        assert_eq!(paired_ratio(&of, &[(7, 1.0)]), None);
        assert_eq!(paired_ratio(&of, &[(0, 0.0)]), None);
    }
}
