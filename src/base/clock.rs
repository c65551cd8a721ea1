//! Time: the system's, or a simulated one that tests move by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where the time comes from. Cheap to clone; clones of a simulated clock share their time.
#[derive(Clone, Default)]
pub struct Clock(Option<Arc<AtomicU64>>);

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that stands at `since_epoch` until it is [advanced](Clock::advance).
    pub fn simulated(since_epoch: Duration) -> Self {
        Self(Some(Arc::new(AtomicU64::new(nanoseconds(since_epoch)))))
    }

    /// Time since 1970-01-01T00:00:00Z.
    pub fn since_epoch(&self) -> Duration {
        match &self.0 {
            Some(simulated) => Duration::from_nanos(simulated.load(Ordering::SeqCst)),
            None => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        }
    }

    /// Moves a simulated clock forward; the system's clock is left alone.
    pub fn advance(&self, by: Duration) {
        if let Some(simulated) = &self.0 {
            simulated.fetch_add(nanoseconds(by), Ordering::SeqCst);
        }
    }

    /// Waits: really, or by moving the simulated time.
    pub fn sleep(&self, time: Duration) {
        match &self.0 {
            Some(_) => self.advance(time),
            None => std::thread::sleep(time),
        }
    }
}

/// A stopwatch on the monotonic clock: the only place that reads it.
#[derive(Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// `2026-11-20T09:57:00Z` for a time since 1970, in UTC without leap seconds.
pub fn rfc3339(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (year, month, day) = civil_from_days((seconds / 86_400) as i64);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of the proleptic Gregorian calendar, `days` after 1970-01-01.
///
/// Counts in eras of 400 years that begin on 1 March, so that the leap day comes last.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let date = |seconds| rfc3339(Duration::from_secs(seconds));
        assert_eq!(date(0), "1970-01-01T00:00:00Z");
        assert_eq!(date(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(date(1_795_478_399), "2026-11-23T23:59:59Z");
    }

    #[test]
    fn simulated_time_moves_only_by_hand() {
        let clock = Clock::simulated(Duration::from_secs(5));
        clock.sleep(Duration::from_secs(2));
        assert_eq!(clock.since_epoch(), Duration::from_secs(7));
    }
}
