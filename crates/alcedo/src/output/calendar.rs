//! Dates, times, durations and intervals as people write them: RFC 3339 and ISO 8601.
//!
//! Part of the output layer. It knows counts and units and nothing of columns or rows. A count that no calendar holds
//! has no text here; the caller prints the plain number instead of a wrong date.

use alcedo_lookup::schema::Unit;
use chrono::DateTime;

const SECONDS_PER_DAY: i64 = 86_400;

/// Days since 1970-01-01 as `2026-01-31`.
pub(crate) fn date(days: i64) -> Option<String> {
    Some(DateTime::from_timestamp(days.checked_mul(SECONDS_PER_DAY)?, 0)?.date_naive().to_string())
}

/// A time of day as `10:20:30.123`, with the digits of its unit.
pub(crate) fn time(count: i64, unit: Unit) -> Option<String> {
    let seconds = count.div_euclid(unit.per_second());
    (0..SECONDS_PER_DAY).contains(&seconds).then(|| clock(seconds, count.rem_euclid(unit.per_second()), unit))
}

/// A timestamp as `2026-01-31T10:20:30.123`, with a `Z` when it is an instant.
pub(crate) fn timestamp(count: i64, unit: Unit, utc: bool) -> Option<String> {
    let seconds = count.div_euclid(unit.per_second());
    let date = date(seconds.div_euclid(SECONDS_PER_DAY))?;
    let clock = clock(seconds.rem_euclid(SECONDS_PER_DAY), count.rem_euclid(unit.per_second()), unit);
    Some(format!("{date}T{clock}{}", if utc { "Z" } else { "" }))
}

/// A duration as `PT1.5S`: seconds only, so that no unit of varying length is invented.
pub(crate) fn duration(count: i64, unit: Unit) -> String {
    let per_second = unit.per_second().unsigned_abs();
    let (seconds, part) = (count.unsigned_abs() / per_second, count.unsigned_abs() % per_second);
    let sign = if count < 0 { "-" } else { "" };
    format!("{sign}PT{seconds}{}S", trimmed(part, unit))
}

/// Parquet's INTERVAL (months, days and milliseconds, each a little-endian `u32`) as `P1M2DT3.5S`.
pub(crate) fn interval(bytes: &[u8]) -> Option<String> {
    let bytes: &[u8; 12] = bytes.try_into().ok()?;
    let part = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let (months, days, millis) = (part(0), part(4), u64::from(part(8)));
    let mut text = String::from("P");
    if months > 0 {
        text += &format!("{months}M");
    }
    if days > 0 {
        text += &format!("{days}D");
    }
    if millis > 0 || text == "P" {
        text += &format!("T{}{}S", millis / 1_000, trimmed(millis % 1_000, Unit::Millisecond));
    }
    Some(text)
}

fn clock(second_of_day: i64, part: i64, unit: Unit) -> String {
    let (hour, minute, second) = (second_of_day / 3_600, second_of_day / 60 % 60, second_of_day % 60);
    let digits = digits(unit);
    if digits == 0 {
        return format!("{hour:02}:{minute:02}:{second:02}");
    }
    format!("{hour:02}:{minute:02}:{second:02}.{part:0digits$}")
}

/// A fraction of a second without zeros at its end.
fn trimmed(part: u64, unit: Unit) -> String {
    let digits = digits(unit);
    if part == 0 {
        return String::new();
    }
    format!(".{part:0digits$}").trim_end_matches('0').to_owned()
}

fn digits(unit: Unit) -> usize {
    match unit {
        Unit::Second => 0,
        Unit::Millisecond => 3,
        Unit::Microsecond => 6,
        Unit::Nanosecond => 9,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_reach_from_before_the_epoch_to_the_calendars_end() {
        assert_eq!(date(0).as_deref(), Some("1970-01-01"));
        assert_eq!(date(-1).as_deref(), Some("1969-12-31"));
        assert_eq!(date(20_484).as_deref(), Some("2026-01-31"));
        assert_eq!(date(i64::from(i32::MAX)), None);
        assert_eq!(date(i64::MAX), None);
    }

    #[test]
    fn timestamps_keep_the_digits_of_their_unit() {
        assert_eq!(timestamp(1_769_854_830, Unit::Second, true).as_deref(), Some("2026-01-31T10:20:30Z"));
        assert_eq!(timestamp(1_769_854_830_120, Unit::Millisecond, false).as_deref(), Some("2026-01-31T10:20:30.120"));
        assert_eq!(timestamp(-1, Unit::Microsecond, true).as_deref(), Some("1969-12-31T23:59:59.999999Z"));
        assert_eq!(timestamp(i64::MIN, Unit::Nanosecond, false).as_deref(), Some("1677-09-21T00:12:43.145224192"));
        assert_eq!(timestamp(i64::MAX, Unit::Second, true), None);
    }

    #[test]
    fn times_are_within_a_day() {
        assert_eq!(time(37_230_000, Unit::Millisecond).as_deref(), Some("10:20:30.000"));
        assert_eq!(time(86_399_999_999_999, Unit::Nanosecond).as_deref(), Some("23:59:59.999999999"));
        assert_eq!(time(86_400_000_000, Unit::Microsecond), None);
        assert_eq!(time(-1, Unit::Microsecond), None);
    }

    #[test]
    fn durations_and_intervals_are_iso_8601() {
        assert_eq!(duration(1_500, Unit::Millisecond), "PT1.5S");
        assert_eq!(duration(-90, Unit::Second), "-PT90S");
        assert_eq!(duration(i64::MIN, Unit::Nanosecond), "-PT9223372036.854775808S");
        let bytes = |months: u32, days: u32, millis: u32| {
            [months.to_le_bytes(), days.to_le_bytes(), millis.to_le_bytes()].concat()
        };
        assert_eq!(interval(&bytes(1, 2, 3_500)).as_deref(), Some("P1M2DT3.5S"));
        assert_eq!(interval(&bytes(14, 0, 0)).as_deref(), Some("P14M"));
        assert_eq!(interval(&bytes(0, 0, 0)).as_deref(), Some("PT0S"));
        assert_eq!(interval(&[0; 11]), None);
    }
}
