//! A moment, as RFC 3339 text in files.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use toml::value::{Datetime, Offset};

use crate::base::clock::rfc3339;

/// A moment after 1970, in whole seconds. Reads `2027-01-01T00:00:00Z` or with another offset,
/// quoted or, in TOML, as a date; prints it in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The moment this long after 1970-01-01T00:00:00Z, fractions of seconds cut off.
    pub fn of(since_epoch: Duration) -> Self {
        Self(since_epoch.as_secs())
    }

    /// Time since 1970-01-01T00:00:00Z.
    pub fn since_epoch(self) -> Duration {
        Duration::from_secs(self.0)
    }

    fn of_datetime(datetime: &Datetime) -> Option<Self> {
        let (date, time) = (datetime.date?, datetime.time?);
        let offset = match datetime.offset? {
            Offset::Z => 0,
            Offset::Custom { minutes } => i64::from(minutes) * 60,
        };
        let days = days_from_civil(date.year.into(), date.month.into(), date.day.into());
        let (hour, minute) = (i64::from(time.hour), i64::from(time.minute));
        let second = i64::from(time.second.unwrap_or(0));
        let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset;
        u64::try_from(seconds).ok().map(Self)
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar; years begin in March here, so that
/// the leap day comes last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Text that is not a moment.
#[derive(Debug, thiserror::Error)]
#[error("expected a time after 1970 with its offset, such as 2027-01-01T00:00:00Z")]
pub struct NotATime;

impl FromStr for Timestamp {
    type Err = NotATime;

    fn from_str(text: &str) -> Result<Self, NotATime> {
        let datetime: Datetime = text.parse().map_err(|_| NotATime)?;
        Self::of_datetime(&datetime).ok_or(NotATime)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&rfc3339(self.since_epoch()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let found = match toml::Value::deserialize(deserializer)? {
            toml::Value::Datetime(datetime) => Self::of_datetime(&datetime).ok_or(NotATime),
            toml::Value::String(text) => text.parse(),
            _ => Err(NotATime),
        };
        found.map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_round_trip() {
        for text in ["1970-01-01T00:00:00Z", "2000-02-29T12:34:56Z", "2099-12-31T23:59:59Z"] {
            assert_eq!(text.parse::<Timestamp>().unwrap().to_string(), text);
        }
        let tokyo: Timestamp = "2027-01-01T08:30:00+09:00".parse().unwrap();
        assert_eq!(tokyo.to_string(), "2026-12-31T23:30:00Z");
        for text in ["2027-01-01", "2027-01-01T00:00:00", "1969-01-01T00:00:00Z", "soon"] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
    }
}
