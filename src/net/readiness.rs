//! Waiting until a socket or a device is ready.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Waits up to `patience` until `what` is ready for `flags`; says whether it is. A signal ends the
/// waiting, too.
pub(super) fn wait(what: &impl AsFd, flags: PollFlags, patience: Duration) -> io::Result<bool> {
    let mut fds = [PollFd::new(what, flags)];
    let patience = Timespec {
        tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: patience.subsec_nanos().into(),
    };
    match poll(&mut fds, Some(&patience)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
