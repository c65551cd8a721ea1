//! What an error means to the caller: which exit code, and whether to try again.

/// The kind of a failure, in the sense of `sysexits.h` with the additions of the manual.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The command line is wrong.
    Usage,
    /// Input is malformed.
    Data,
    /// Input is not there.
    NoInput,
    /// A peer, holder, key manager or tool cannot be reached.
    Unavailable,
    /// An invariant of this program broke.
    Bug,
    /// A device or the operating system failed.
    System,
    /// A disk is full or failed.
    Disk,
    /// Later it may work: keys are short, or something is busy.
    TryAgain,
    /// A tag or digest is wrong, or a key would have been used twice.
    Integrity,
    /// Not permitted.
    Refused,
    /// The configuration is wrong.
    Config,
    /// Stopped by a signal.
    Interrupted,
}

impl Fault {
    /// Every fault, in the order of its exit code.
    pub const ALL: [Fault; 12] = [
        Fault::Usage,
        Fault::Data,
        Fault::NoInput,
        Fault::Unavailable,
        Fault::Bug,
        Fault::System,
        Fault::Disk,
        Fault::TryAgain,
        Fault::Integrity,
        Fault::Refused,
        Fault::Config,
        Fault::Interrupted,
    ];

    /// The exit code of a program that ends with this fault.
    pub fn exit_code(self) -> u8 {
        match self {
            Fault::Usage => 2,
            Fault::Data => 65,
            Fault::NoInput => 66,
            Fault::Unavailable => 69,
            Fault::Bug => 70,
            Fault::System => 71,
            Fault::Disk => 74,
            Fault::TryAgain => 75,
            Fault::Integrity => 76,
            Fault::Refused => 77,
            Fault::Config => 78,
            Fault::Interrupted => 130,
        }
    }

    /// The fault with that exit code: how a site learns what went wrong at its peer.
    pub fn from_exit_code(code: u8) -> Fault {
        Fault::ALL.into_iter().find(|fault| fault.exit_code() == code).unwrap_or(Fault::Bug)
    }

    /// The fault of a failed file operation on a path that the user named.
    pub fn of_io(error: &std::io::Error) -> Fault {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::NotFound => Fault::NoInput,
            ErrorKind::PermissionDenied => Fault::Refused,
            ErrorKind::InvalidData | ErrorKind::UnexpectedEof => Fault::Data,
            ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::TimedOut
            | ErrorKind::NotConnected => Fault::Unavailable,
            _ => Fault::Disk,
        }
    }
}

/// An error with its causes, in one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// An error that says what it means to the caller.
pub trait Faulty: std::error::Error + Send + Sync + 'static {
    /// The kind of failure.
    fn fault(&self) -> Fault;

    /// What the user can do about it, if there is something to say.
    fn hint(&self) -> Option<String> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_distinct_and_name_their_fault() {
        for fault in Fault::ALL {
            assert_eq!(Fault::from_exit_code(fault.exit_code()), fault);
        }
    }
}
