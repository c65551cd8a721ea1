//! What lies between the two processes: loopback, or two network namespaces joined by a veth pair.

use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::ends::{End, Found, Task};

/// A path, made for as long as it lives.
pub struct Path {
    name: &'static str,
    /// Names of the two namespaces; none on loopback.
    namespaces: Option<[String; 2]>,
    program: PathBuf,
}

impl Path {
    /// Both processes on loopback.
    pub fn loopback(program: PathBuf) -> Self {
        Self { name: "loopback", namespaces: None, program }
    }

    /// Two namespaces with a veth pair between them. Without `offloads` the kernel cuts what it is
    /// given into packets before the pair, as it must before a wire.
    ///
    /// Errors: what `ip` or `ethtool` says; it takes the right to make namespaces, which root has.
    pub fn veth(program: PathBuf, offloads: bool) -> io::Result<Self> {
        let id = std::process::id();
        let names = [format!("dsgd-{id}-a"), format!("dsgd-{id}-b")];
        let name = if offloads { "veth" } else { "veth, no offloads" };
        // From here on the namespaces are removed again, whatever happens.
        let path = Self { name, namespaces: Some(names.clone()), program };
        let [a, b] = &names;
        for namespace in &names {
            run("ip", &["netns", "add", namespace])?;
        }
        let pair =
            ["link", "add", "v0", "netns", a, "type", "veth", "peer", "name", "v0", "netns", b];
        run("ip", &pair)?;
        for (namespace, address) in names.iter().zip(["10.199.3.1/30", "10.199.3.2/30"]) {
            run("ip", &["-n", namespace, "addr", "add", address, "dev", "v0"])?;
            run("ip", &["-n", namespace, "link", "set", "v0", "up"])?;
            if !offloads {
                run("ip", &["-n", namespace, "link", "set", "v0", "gso_max_segs", "1"])?;
            }
        }
        Ok(path)
    }

    /// What it is called in reports.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Where the receiver listens; port 0.
    fn receiver(&self) -> SocketAddr {
        let ip = match self.namespaces {
            None => Ipv4Addr::LOCALHOST,
            Some(_) => Ipv4Addr::new(10, 199, 3, 2),
        };
        SocketAddr::new(IpAddr::V4(ip), 0)
    }

    /// Runs both ends of `task` and gives what they found: sender, receiver.
    pub fn run(&self, task: &Task) -> io::Result<(Found, Found)> {
        let receive = Task { end: End::Receiver, address: self.receiver(), ..task.clone() };
        let mut receiver = Process::start(self, &receive)?;
        let address: SocketAddr = receiver.line()?;
        let mut sender = Process::start(self, &Task { end: End::Sender, address, ..task.clone() })?;
        let sent = sender.line()?;
        let received = receiver.line()?;
        sender.end()?;
        receiver.end()?;
        Ok((sent, received))
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        for namespace in self.namespaces.iter().flatten() {
            // What is not there needs not be removed.
            let _ = run("ip", &["netns", "delete", namespace]);
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> io::Result<()> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{program} {}: {}", arguments.join(" "), said.trim())))
}

/// One end. Killed when it is dropped before it has ended.
struct Process {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Process {
    fn start(path: &Path, task: &Task) -> io::Result<Self> {
        let mut command = match &path.namespaces {
            None => Command::new(&path.program),
            Some([a, b]) => {
                let namespace = if task.end == End::Sender { a } else { b };
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(&path.program);
                command
            }
        };
        let task = serde_json::to_string(task).expect("a task is plain data");
        let mut child = command
            .args(["bench", "table3-end", &task])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = BufReader::new(child.stdout.take().expect("standard output is piped"));
        Ok(Self { child, out })
    }

    /// The next line of its output.
    fn line<T: serde::de::DeserializeOwned>(&mut self) -> io::Result<T> {
        let mut line = String::new();
        self.out.read_line(&mut line)?;
        serde_json::from_str(&line)
            .map_err(|_| io::Error::other("one end of the measurement has failed; see above"))
    }

    fn end(&mut self) -> io::Result<()> {
        self.child.wait().map(drop)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended already needs no more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
