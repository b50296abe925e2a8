//! Money, durations and times, as people read them.

use jiff::{Timestamp, tz::TimeZone};

const MICROS: i64 = 1_000_000;

/// Millionths of a dollar as `$0.0123`: four decimals below a dollar, two above, never rounded down to nothing.
pub(crate) fn money(micros: i64) -> String {
    let sign = if micros < 0 { "-" } else { "" };
    let micros = micros.unsigned_abs();
    if micros == 0 {
        return "$0.00".to_owned();
    }
    if micros < MICROS.unsigned_abs() {
        let ten_thousandths = micros.div_ceil(100);
        if ten_thousandths < 10_000 {
            return format!("{sign}$0.{ten_thousandths:04}");
        }
    }
    let cents = (micros + 5_000) / 10_000;
    format!("{sign}${}.{:02}", cents / 100, cents % 100)
}

/// Reads `5`, `2.50` or `$0.75` as millionths of a dollar.
pub(crate) fn parse_money(text: &str) -> Result<i64, String> {
    let digits = text.trim().trim_start_matches('$');
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let numeric = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !numeric(whole) || !numeric(part) || whole.len() + part.len() == 0 || part.len() > 6 {
        return Err(format!(
            "`{text}` is not an amount of US dollars, such as 2.50"
        ));
    }
    let number = |text: &str| text.parse::<i64>().unwrap_or(0);
    let micros = whole
        .parse::<i64>()
        .or(if whole.is_empty() { Ok(0) } else { Err(()) })
        .ok()
        .and_then(|whole| whole.checked_mul(MICROS))
        .and_then(|whole| whole.checked_add(number(&format!("{part:0<6}"))));
    match micros {
        Some(micros) if micros > 0 => Ok(micros),
        Some(_) => Err("a budget must be more than nothing".to_owned()),
        None => Err(format!("`{text}` is too much")),
    }
}

/// Seconds as `41s`, `2m 03s`, `1h 05m` or `3d 04h`.
pub(crate) fn duration(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    if days > 0 {
        format!("{days}d {:02}h", hours % 24)
    } else if hours > 0 {
        format!("{hours}h {:02}m", minutes % 60)
    } else if minutes > 0 {
        format!("{minutes}m {:02}s", seconds % 60)
    } else {
        format!("{seconds}s")
    }
}

/// Reads `90s`, `30m`, `12h`, `30d` or `4w` as seconds.
pub(crate) fn parse_duration(text: &str) -> Result<i64, String> {
    let refusal = || format!("`{text}` is not a duration, such as 12h or 30d");
    let unit = text.chars().next_back().ok_or_else(refusal)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return Err(refusal()),
    };
    let count = &text[..text.len() - 1];
    count
        .parse::<u32>()
        .ok()
        .filter(|count| *count > 0)
        .map(|count| i64::from(count) * seconds)
        .ok_or_else(refusal)
}

/// The time of the day here, `HH:MM:SS`; with its date when it is not within a day of `now`.
pub(crate) fn time(time: Option<&prost_types::Timestamp>, now: Timestamp) -> String {
    let Some(time) = timestamp(time) else {
        return "-".to_owned();
    };
    let far = now.duration_since(time).as_secs().abs() >= 86_400;
    let here = time.to_zoned(TimeZone::system());
    let pattern = if far { "%Y-%m-%d %H:%M" } else { "%H:%M:%S" };
    here.strftime(pattern).to_string()
}

/// How long ago that was; `-` when it never was.
pub(crate) fn since(time: Option<&prost_types::Timestamp>, now: Timestamp) -> String {
    timestamp(time).map_or_else(
        || "-".to_owned(),
        |time| duration(now.duration_since(time).as_secs()),
    )
}

/// The wire's time as jiff's; nothing where it is unset or out of range.
pub(crate) fn timestamp(time: Option<&prost_types::Timestamp>) -> Option<Timestamp> {
    let time = time?;
    Timestamp::new(time.seconds, time.nanos).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_shown_with_the_decimals_that_matter() {
        for (micros, shown) in [
            (0, "$0.00"),
            (1, "$0.0001"),
            (12_300, "$0.0123"),
            (999_990, "$1.00"),
            (1_000_000, "$1.00"),
            (5_255_000, "$5.26"),
            (-12_300, "-$0.0123"),
            (1_234_560_000, "$1234.56"),
        ] {
            assert_eq!(money(micros), shown, "{micros} micros");
        }
    }

    #[test]
    fn money_is_read_exactly() {
        for (text, micros) in [
            ("5", 5_000_000),
            ("2.50", 2_500_000),
            ("$0.75", 750_000),
            (".1", 100_000),
            ("0.000001", 1),
        ] {
            assert_eq!(parse_money(text), Ok(micros), "{text}");
        }
        for text in [
            "",
            "$",
            "-1",
            "0",
            "1.2345678",
            "five",
            "1e3",
            "99999999999999999999",
        ] {
            assert!(parse_money(text).is_err(), "{text} was taken");
        }
    }

    #[test]
    fn durations_are_short() {
        for (seconds, shown) in [
            (-3, "0s"),
            (41, "41s"),
            (123, "2m 03s"),
            (3_900, "1h 05m"),
            (273_600, "3d 04h"),
        ] {
            assert_eq!(duration(seconds), shown);
        }
        assert_eq!(parse_duration("30d"), Ok(2_592_000));
        assert_eq!(parse_duration("90s"), Ok(90));
        for text in ["", "d", "0h", "12", "-3h", "3y", "4é"] {
            assert!(parse_duration(text).is_err(), "{text} was taken");
        }
    }

    #[test]
    fn times_beyond_a_day_carry_their_date() {
        let now = Timestamp::new(1_000_000, 0).expect("in range");
        let near = prost_types::Timestamp {
            seconds: 999_000,
            nanos: 0,
        };
        let far = prost_types::Timestamp {
            seconds: 0,
            nanos: 0,
        };
        assert_eq!(time(Some(&near), now).len(), "HH:MM:SS".len());
        assert_eq!(time(Some(&far), now).len(), "YYYY-MM-DD HH:MM".len());
        assert_eq!(time(None, now), "-");
        assert_eq!(since(Some(&near), now), "16m 40s");
    }
}
