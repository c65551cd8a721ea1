//! The forwarding products as an operator runs them: `dsgd relay` and `dsgd tunnel`, each end a
//! process of its own.

#![allow(clippy::unwrap_used)] // Helpers of tests, which clippy does not take for tests.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketType, recv, socket};

const PATIENCE: Duration = Duration::from_secs(30);

/// The program, killed when this is dropped.
struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    /// The JSON document that it prints when it is ready.
    fn document(&mut self) -> serde_json::Value {
        let mut text = String::new();
        while self.out.read_line(&mut text).unwrap() > 0 && !text.ends_with("\n}\n") {}
        match serde_json::from_str::<serde_json::Value>(&text) {
            Ok(document) if document["ok"] == true => document["data"].clone(),
            _ => panic!("it said '{text}' and {}", self.complaints()),
        }
    }

    fn complaints(&mut self) -> String {
        self.child.kill().unwrap();
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }

    /// Asks it to end, as an operator does, and gives what it said on standard error.
    fn end(mut self) -> String {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        assert!(self.child.wait().unwrap().success(), "{text}");
        text
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn dsgd() -> Command {
    Command::new(env!("CARGO_BIN_EXE_dsgd"))
}

/// A folder with the configurations of two sites that have a link.
fn two_sites(cipher: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("link.json");
    let mut make = dsgd();
    make.args(["keys", "simulate", "one", "two", "--stock", "1GB", "-o"])
        .arg(&link)
        .stdout(Stdio::null());
    assert!(make.status().unwrap().success());
    for (site, peer) in [("one", "two"), ("two", "one")] {
        let text = format!(
            "site = \"{site}\"\nstate = \"{site}\"\n[net]\ncipher = \"{cipher}\"\nkey-wait-seconds = 5\n\
             [[peer]]\nsite = \"{peer}\"\n[[key]]\npeer = \"{peer}\"\nkind = \"sim\"\nfile = \"link.json\"\n"
        );
        fs::write(folder.path().join(format!("{site}.toml")), text).unwrap();
    }
    folder
}

fn config(folder: &Path, site: &str) -> PathBuf {
    folder.join(format!("{site}.toml"))
}

/// Sends back what it gets, until the other side ends.
fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || {
                let mut stream = stream.unwrap();
                let mut back = stream.try_clone().unwrap();
                std::io::copy(&mut stream, &mut back).unwrap();
                back.shutdown(Shutdown::Write).unwrap();
            });
        }
    });
    address
}

fn echo_datagrams() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((bytes, from)) = socket.recv_from(&mut buffer) {
            socket.send_to(&buffer[..bytes], from).unwrap();
        }
    });
    address
}

#[test]
fn an_applications_connections_and_datagrams_reach_the_other_side() {
    let folder = two_sites("otp");
    let (tcp, udp) = (echo_server(), echo_datagrams());
    let mut listen = dsgd();
    listen.arg("--json").arg("-c").arg(config(folder.path(), "two"));
    listen.args(["relay", "listen", "--address", "127.0.0.1:0"]);
    listen.args(["--permit", &format!("one=tcp:{tcp}"), "--permit", &format!("one=udp:{udp}")]);
    let mut listening = Running::start(&mut listen);
    let document = listening.document();
    assert_eq!(document["security"], "information-theoretic");
    let address = document["address"].as_str().unwrap().to_owned();

    let mut call = dsgd();
    call.arg("--json").arg("-c").arg(config(folder.path(), "one"));
    call.args(["relay", "call", "two", "--address", &address]);
    call.args([&format!("127.0.0.1:0=tcp:{tcp}"), &format!("127.0.0.1:0=udp:{udp}")]);
    call.arg("127.0.0.1:0=tcp:127.0.0.1:1");
    let mut calling = Running::start(&mut call);
    let relays = calling.document()["relays"].clone();
    let local = |number: usize| relays[number][0].as_str().unwrap().parse::<SocketAddr>().unwrap();

    // 3 MB there and back, while the other direction is read.
    let text: Vec<u8> =
        (0..3_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut stream = TcpStream::connect(local(0)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut out = stream.try_clone().unwrap();
    let sent = text.clone();
    let sending = thread::spawn(move || {
        out.write_all(&sent).unwrap();
        out.shutdown(Shutdown::Write).unwrap();
    });
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    sending.join().unwrap();
    assert!(got == text, "{} of {} bytes came back", got.len(), text.len());

    // What is not permitted is not reached: the connection ends with nothing.
    let mut refused = TcpStream::connect(local(2)).unwrap();
    refused.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(refused.read(&mut [0; 10]).unwrap_or(0), 0);

    // Two senders of datagrams, which get their own answers.
    let port = local(1);
    let sockets = [0, 1].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
    let mut buffer = [0; 2048];
    for round in 0..20u8 {
        for (which, socket) in sockets.iter().enumerate() {
            socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            let text = vec![round * 2 + which as u8; 10 + usize::from(round) * 70];
            // UDP promises nothing, the first packets least of all.
            let came = (0..30).any(|_| {
                socket.send_to(&text, port).unwrap();
                socket.recv(&mut buffer).is_ok_and(|bytes| buffer[..bytes] == text)
            });
            assert!(came, "round {round}");
        }
    }
    let said = calling.end();
    assert!(said.contains("datagrams sent"), "{said}");
    listening.end();
}

#[test]
fn a_site_that_is_set_to_plain_frames_relays_nothing() {
    let folder = two_sites("plain");
    let mut listen = dsgd();
    listen.arg("-c").arg(config(folder.path(), "two"));
    listen.args(["relay", "listen", "--address", "127.0.0.1:0", "--permit", "one=tcp:127.0.0.1:1"]);
    let output = listen.output().unwrap();
    assert_eq!(output.status.code(), Some(78), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A network namespace joined to this one by a veth pair; removed on drop.
struct Namespace {
    name: String,
}

impl Namespace {
    /// `None` where this process may not make one.
    fn new() -> Option<Self> {
        let namespace = Self { name: format!("dsgd-test-{}", std::process::id()) };
        let name = &namespace.name;
        let veth = format!("dt{}", std::process::id() % 1_000_000);
        let ip = |arguments: &[&str]| {
            let output = Command::new("ip").args(arguments).output();
            output.is_ok_and(|output| output.status.success())
        };
        // What a run before this one has left must not stand in the way.
        let [outer, far] = [1, 2].map(outer);
        let made = ip(&["netns", "add", name])
            && ip(&["-n", name, "link", "set", "lo", "up"])
            && ip(&["link", "add", &veth, "type", "veth", "peer", "name", "v0", "netns", name])
            && ip(&["addr", "add", &format!("{outer}/30"), "dev", &veth])
            && ip(&["link", "set", &veth, "up"])
            && ip(&["-n", name, "addr", "add", &format!("{far}/30"), "dev", "v0"])
            && ip(&["-n", name, "link", "set", "v0", "up"]);
        made.then_some(namespace)
    }

    fn run(&self) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, env!("CARGO_BIN_EXE_dsgd")]);
        command
    }
}

/// The address of one end of the pair: of a network that this process alone uses.
fn outer(end: u8) -> Ipv4Addr {
    own_address([100, 64], end)
}

/// The address of one end of the tunnel, of such a network, too.
fn inner(end: u8) -> Ipv4Addr {
    own_address([10, 128], end)
}

fn own_address([first, second]: [u8; 2], end: u8) -> Ipv4Addr {
    let [.., high, low] = (std::process::id() % 16_000 * 4).to_be_bytes();
    Ipv4Addr::new(first, second + high % 64, high / 64 * 8, (low & !3) + end)
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).output();
    }
}

/// Every outer datagram between the two ends that this machine sees, from its Ethernet frame.
fn capture(ends: [Ipv4Addr; 2], until: &AtomicBool) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    // All protocols, ETH_P_ALL, in network order.
    let all = Protocol::from_raw(std::num::NonZeroU32::new(u32::from(3u16.to_be())).unwrap());
    let socket = socket(AddressFamily::PACKET, SocketType::RAW, Some(all)).unwrap();
    let wait = rustix::net::sockopt::Timeout::Recv;
    rustix::net::sockopt::set_socket_timeout(&socket, wait, Some(Duration::from_millis(50)))
        .unwrap();
    let mut buffer = vec![0; 65_536];
    while !until.load(Ordering::SeqCst) {
        let Ok((bytes, _)) = recv(&socket, &mut buffer[..], RecvFlags::empty()) else { continue };
        let frame = &buffer[..bytes];
        let outer = |at: usize| ends.iter().any(|end| frame.get(at..at + 4) == Some(&end.octets()));
        if frame.get(12..14) == Some(&[8, 0]) && outer(26) && outer(30) && frame[23] == 17 {
            frames.push(frame.to_vec());
        }
    }
    frames
}

/// Ends the capture, also when the test fails before.
struct Until<'a>(&'a AtomicBool);

impl Drop for Until<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_tunnel_carries_ip_and_shows_nothing_of_it() {
    if !Path::new("/dev/net/tun").exists() {
        return eprintln!("skipped: no /dev/net/tun");
    }
    let Some(namespace) = Namespace::new() else {
        return eprintln!("skipped: no right to make network namespaces");
    };
    let folder = two_sites("otp");
    let mut listen = namespace.run();
    listen.arg("--json").arg("-c").arg(config(folder.path(), "two"));
    listen.args(["tunnel", "listen", "one", "--address", &format!("{}:0", outer(2))]);
    listen.args(["--device", "dsgdb", "--inner", &format!("{}/30", inner(2))]);
    let mut listening = Running::start(&mut listen);
    let address = listening.document()["address"].as_str().unwrap().to_owned();

    let device = format!("dsgd{}", std::process::id() % 1_000_000);
    let mut call = dsgd();
    call.arg("-c").arg(config(folder.path(), "one"));
    call.args(["tunnel", "call", "two", "--address", &address, "--device", &device]);
    call.args(["--inner", &format!("{}/30", inner(1))]);
    let calling = Running::start(&mut call);

    let until = AtomicBool::new(false);
    let mut frames = Vec::new();
    let text = b"this text is carried within the tunnel and is not to be seen outside of it";
    thread::scope(|scope| {
        let ending = Until(&until);
        let ends = [1, 2].map(outer);
        let captured = scope.spawn({
            let until = &until;
            move || capture(ends, until)
        });
        // A connection from the far end to a listener at the inner address of this one.
        let server = (0..300).find_map(|_| {
            thread::sleep(Duration::from_millis(100));
            TcpListener::bind((inner(1), 5443)).ok()
        });
        let server = server.expect("the device has its address");
        let far = scope.spawn(|| {
            let program = format!(
                "exec 3<>/dev/tcp/{}/5443; printf '%s' '{}' >&3; cat <&3",
                inner(1),
                String::from_utf8_lossy(text)
            );
            let mut command = Command::new("ip");
            command.args(["netns", "exec", &namespace.name, "bash", "-c", &program]);
            command.output().unwrap()
        });
        let (mut stream, from) = server.accept().unwrap();
        assert_eq!(from.ip(), inner(2));
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut got = vec![0; text.len()];
        stream.read_exact(&mut got).unwrap();
        assert_eq!(got, text);
        // 300 kB back: many inner packets, of different sizes.
        let answer: Vec<u8> = (0..300_000u32).map(|n| b'a' + (n % 23) as u8).collect();
        stream.write_all(&answer).unwrap();
        drop(stream);
        let output = far.join().unwrap();
        assert!(output.stdout == answer, "{} bytes came", output.stdout.len());
        drop(ending);
        frames = captured.join().unwrap();
    });
    let shows =
        |what: &[u8]| frames.iter().any(|frame| frame.windows(what.len()).any(|at| at == what));
    for hidden in [&b"this text"[..], &[10, 208, 7, 1], &[10, 208, 7, 2], b"abcdefgh"] {
        assert!(!shows(hidden), "{hidden:?} is seen on the way");
    }
    // Headers apart (14 Ethernet, 20 IP, 8 UDP), all are of the one size, whatever is in them; several
    // that the kernel has not cut apart yet are seen as one.
    assert!(frames.iter().all(|frame| (frame.len() - 42) % 1448 == 0));
    let seen: usize = frames.iter().map(|frame| (frame.len() - 42) / 1448).sum();
    assert!(seen > 100, "{seen} datagrams seen in {} frames", frames.len());
    let said = calling.end();
    assert!(said.contains("inner packets"), "{said}");
    listening.end();
}
