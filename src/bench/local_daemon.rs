//! One `dsgd serve` on this machine, as a process.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// A daemon that runs until this is dropped; then it is killed, as a power cut would.
pub struct LocalDaemon {
    child: Child,
    report: Value,
}

impl LocalDaemon {
    /// Starts `program --config config serve role`, and waits until it listens. What it says goes to the
    /// end of the file `log`.
    ///
    /// Errors: its log, when it does not start.
    pub fn start(program: &Path, config: &Path, role: &str, log: &Path) -> io::Result<Self> {
        let mut child = Command::new(program)
            .arg("--config")
            .arg(config)
            .args(["--json", "serve", role])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::options().create(true).append(true).open(log)?)
            .spawn()?;
        let mut out = BufReader::new(child.stdout.take().expect("standard output is piped"));
        let mut daemon = Self { child, report: Value::Null };
        let mut answer = String::new();
        // The document ends with a brace in the first column.
        while out.read_line(&mut answer)? > 0 && !answer.ends_with("\n}\n") {}
        daemon.report = serde_json::from_str(&answer).unwrap_or_default();
        if daemon.report["ok"] == true {
            return Ok(daemon);
        }
        let said = fs::read_to_string(log).unwrap_or_default();
        Err(io::Error::other(format!("'{}' did not start: {}", config.display(), said.trim())))
    }

    /// Where it listens, `host:port`.
    pub fn address(&self) -> &str {
        self.report["data"]["address"].as_str().unwrap_or_default()
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for LocalDaemon {
    fn drop(&mut self) {
        // A process that has ended already needs no more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Addresses that are free now, and that nothing else comes upon: each is of a loopback address of its own,
/// where no outgoing connection and no listener on port 0 of another process takes its port.
pub fn free_addresses<const N: usize>() -> io::Result<[String; N]> {
    let mut addresses = [const { String::new() }; N];
    for address in &mut addresses {
        let [.., a, b, c] = getrandom::u32()?.to_be_bytes();
        let host = Ipv4Addr::new(127, a, b, c.clamp(2, 254));
        *address = TcpListener::bind((host, 0))?.local_addr()?.to_string();
    }
    Ok(addresses)
}
