//! Bytes, durations, counts and wall times in words a person reads at a glance. JSON never uses these: it prints
//! integers.
//!
//! Part of the output layer.

use std::time::Duration;

use alcedo_lookup::schema::Unit;

use super::calendar;

/// `412 B`, `9.8 KiB`, `12.4 GiB`: binary units with one digit after the point.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1_024 {
        return format!("{count} B");
    }
    let mut value = count as f64;
    let mut unit = "";
    for next in UNITS {
        value /= 1_024.0;
        unit = next;
        // What would print as 1024.0 belongs to the next unit.
        if value < 1_023.95 {
            break;
        }
    }
    format!("{value:.1} {unit}")
}

/// `0.41 ms`, `12.3 ms`, `1.20 s`: three digits, never less than a microsecond's resolution.
pub(crate) fn elapsed(time: Duration) -> String {
    let micros = time.as_micros();
    let millis = micros as f64 / 1_000.0;
    match micros {
        0..10_000 => format!("{millis:.2} ms"),
        10_000..100_000 => format!("{millis:.1} ms"),
        100_000..1_000_000 => format!("{millis:.0} ms"),
        _ => format!("{:.2} s", millis / 1_000.0),
    }
}

/// Microseconds as `0.004 ms`: where short times stand side by side, one unit for all of them compares at a glance.
pub(crate) fn millis(micros: u64) -> String {
    format!("{}.{:03} ms", micros / 1_000, micros % 1_000)
}

/// Seconds as `41s`, `3m2s`, `5h12m`, `12d4h`: the two largest units.
pub(crate) fn age(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{minutes}m{}s", seconds % 60),
        3_600..86_400 => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

/// `97.6`: how much of a whole a part is, in percent; `-` of nothing.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    match whole {
        0 => "-".to_owned(),
        // What is not all must not look like it.
        _ if part < whole => format!("{:.1}", (100.0 * part as f64 / whole as f64).min(99.9)),
        _ => "100".to_owned(),
    }
}

/// `1,234,567`.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 row`, `2 rows`: a count with its noun.
pub(crate) fn counted(value: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(value), if value == 1 { "" } else { "s" })
}

/// Microseconds since the Unix epoch, to the second, in UTC.
pub(crate) fn instant(micros: i64) -> String {
    let seconds = micros.div_euclid(1_000_000);
    calendar::timestamp(seconds, Unit::Second, true).unwrap_or_else(|| seconds.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_short_and_binary() {
        let cases = [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (10_035, "9.8 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (13_314_398_617, "12.4 GiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (value, text) in cases {
            assert_eq!(bytes(value), text);
        }
    }

    #[test]
    fn times_have_three_digits() {
        let cases = [(0, "0.00 ms"), (410, "0.41 ms"), (12_340, "12.3 ms"), (148_400, "148 ms"), (1_204_000, "1.20 s")];
        for (micros, text) in cases {
            assert_eq!(elapsed(Duration::from_micros(micros)), text);
        }
    }

    #[test]
    fn ages_have_two_units_and_parts_are_never_all() {
        let ages = [0, 59, 182, 3_599, 18_720, 86_399, 1_051_200].map(age);
        assert_eq!(ages, ["0s", "59s", "3m2s", "59m59s", "5h12m", "23h59m", "12d4h"]);
        assert_eq!([0, 4, 30_100].map(millis), ["0.000 ms", "0.004 ms", "30.100 ms"]);
        let parts = [(0, 0), (0, 9), (976, 1_000), (999_999, 1_000_000), (5, 5)].map(|(part, of)| percent(part, of));
        assert_eq!(parts, ["-", "0.0", "97.6", "99.9", "100"]);
    }

    #[test]
    fn counts_have_separators_and_nouns() {
        assert_eq!(count(7), "7");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(counted(1, "row"), "1 row");
        assert_eq!(counted(12_000, "row"), "12,000 rows");
    }

    #[test]
    fn instants_are_utc() {
        assert_eq!(instant(1_769_854_830_999_999), "2026-01-31T10:20:30Z");
        assert_eq!(instant(-1), "1969-12-31T23:59:59Z");
    }
}
