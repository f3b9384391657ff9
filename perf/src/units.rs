//! Numbers as people write and read them: sizes, rates, times.

use std::time::Duration;

/// Parses a size in bytes: `512`, `64k`, `64KiB`, `1MiB`, `2G` (powers of 1,024 throughout).
pub fn parse_size(text: &str) -> Result<usize, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: usize = text[..digits].parse().map_err(|_| format!("{text:?} is no size"))?;
    let shift = match text[digits..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        unit => return Err(format!("unknown unit {unit:?}; b, k, m and g are known")),
    };
    number.checked_shl(shift).filter(|n| n >> shift == number).ok_or("too large".to_owned())
}

/// How fast requests come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// This many records per second, whatever the answers do.
    PerSecond(f64),
    /// As fast as answers come, with a bounded number in flight.
    Max,
}

/// Parses a rate: records per second, with `k` or `m` for thousands and millions, or `max`.
pub fn parse_rate(text: &str) -> Result<Rate, String> {
    if text.eq_ignore_ascii_case("max") {
        return Ok(Rate::Max);
    }
    let lower = text.to_ascii_lowercase();
    let (digits, factor) = match lower.strip_suffix(['k', 'm']) {
        Some(digits) if lower.ends_with('k') => (digits, 1e3),
        Some(digits) => (digits, 1e6),
        None => (lower.as_str(), 1.0),
    };
    match digits.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(Rate::PerSecond(rate * factor)),
        _ => Err(format!("{text:?} is neither records per second nor \"max\"")),
    }
}

/// Parses seconds, fractions allowed.
pub fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is no number of seconds"))?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// Nanoseconds in the unit that reads best, three digits: `381 µs`, `1.27 ms`, `12.0 s`.
pub fn time(nanos: u64) -> String {
    let nanos = nanos as f64;
    let (value, unit) = match nanos {
        n if n < 1e3 => (n, "ns"),
        n if n < 999.5e3 => (n / 1e3, "µs"),
        n if n < 999.5e6 => (n / 1e6, "ms"),
        n => (n / 1e9, "s"),
    };
    format!("{} {unit}", three_digits(value))
}

/// Bytes in powers of 1,024: `4 KiB`, `1.5 MiB`.
pub fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value.fract() == 0.0 {
        format!("{value:.0} {}", units[unit])
    } else {
        format!("{} {}", three_digits(value), units[unit])
    }
}

/// A count with separators: `1,234,567`.
pub fn count(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Bytes per second, in MB/s (10⁶).
pub fn megabytes(per_second: f64) -> String {
    three_digits(per_second / 1e6)
}

/// Three significant digits, never in exponents.
pub fn three_digits(value: f64) -> String {
    match value.abs() {
        v if v < 9.995 => format!("{value:.2}"),
        v if v < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_understood() {
        assert_eq!(parse_size("4KiB"), Ok(4096));
        assert_eq!(parse_size("100"), Ok(100));
        assert_eq!(parse_size("1m"), Ok(1 << 20));
        assert!(parse_size("k").is_err() && parse_size("4x").is_err() && parse_size("").is_err());
        assert!(parse_size("99999999999g").is_err());
        assert_eq!(parse_rate("max"), Ok(Rate::Max));
        assert_eq!(parse_rate("2.5k"), Ok(Rate::PerSecond(2500.0)));
        assert_eq!(parse_rate("1M"), Ok(Rate::PerSecond(1e6)));
        assert!(
            parse_rate("0").is_err() && parse_rate("-1").is_err() && parse_rate("nan").is_err()
        );
        assert_eq!(parse_seconds("0.5"), Ok(Duration::from_millis(500)));
        assert!(parse_seconds("-1").is_err());
    }

    #[test]
    fn what_is_printed_reads_well() {
        let times = [900, 1_270, 381_000, 999_600, 12_000_000, 61_000_000_000].map(time);
        assert_eq!(times, ["900 ns", "1.27 µs", "381 µs", "1.00 ms", "12.0 ms", "61.0 s"]);
        assert_eq!([size(0), size(4096), size(1_600_000)], ["0 B", "4 KiB", "1.53 MiB"]);
        assert_eq!([count(0.4), count(999.0), count(1_234_567.0)], ["0", "999", "1,234,567"]);
    }
}
