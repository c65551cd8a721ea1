//! What a process that holds key does before anything else: no core dump, no debugger of the same user.
//!
//! Source: Linux manual pages PR_SET_DUMPABLE(2const), getrlimit(2), core(5).

use rustix::process::{DumpableBehavior, Resource, Rlimit};

/// How far the system keeps this process's memory to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hygiene {
    /// Whether the process may be dumped, and read by others of its user.
    pub dumpable: bool,
    /// Whether a core file could be written.
    pub core_files: bool,
    /// Bytes that may be locked in memory; `None` without a limit.
    pub lockable_bytes: Option<u64>,
    /// Whether the machine has swap space, where unlocked memory may be written.
    pub swap: bool,
}

/// Forbids dumps and debuggers of this process for good, and says how it stands then.
pub fn protect() -> Hygiene {
    // Where the system refuses, `look` says so.
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let _ = rustix::process::setrlimit(Resource::Core, none);
    look()
}

/// How it stands.
pub fn look() -> Hygiene {
    let dumpable = rustix::process::dumpable_behavior();
    // The privilege to lock any amount is not asked for: with it the limit is only pessimistic.
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    Hygiene {
        dumpable: !matches!(dumpable, Ok(DumpableBehavior::NotDumpable)),
        core_files: rustix::process::getrlimit(Resource::Core).current != Some(0),
        lockable_bytes: rustix::process::getrlimit(Resource::Memlock).current,
        swap: swaps.lines().count() > 1,
    }
}
