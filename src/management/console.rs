//! The operator's door to a running agent or server: a socket in its state folder, for its owner alone.
//!
//! One request in JSON, one line; one answer in JSON, one line.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::plan::Path as Way;
use super::protocol::Report;
use super::{Agent, Error, Level, Order, Server, Supplied};
use crate::base::fault::with_causes;
use crate::base::{Faulty, SiteId};

/// Most bytes of a request or answer.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// How long a caller may take to ask.
const DEADLINE: Duration = Duration::from_secs(10);

/// What an operator asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Question {
    /// What there is.
    Level,
    /// Which way key would go.
    Plan(Order),
    /// Get key for two sites.
    Supply(Order),
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// By a server: every link of the network.
    Levels(Vec<Level>),
    /// By an agent: its own links.
    Report(Box<Report>),
    /// The ways.
    Ways(Vec<Way>),
    /// The key.
    Supplied(Box<Supplied>),
    /// It failed.
    Failed {
        /// Why.
        message: String,
        /// The exit code that stands for it.
        code: u8,
    },
}

/// Who answers.
pub trait Respond: Send + Sync {
    /// Answers one question.
    fn respond(&self, question: Question) -> Result<Answer, Error>;
}

impl Respond for Server {
    fn respond(&self, question: Question) -> Result<Answer, Error> {
        Ok(match question {
            Question::Level => Answer::Levels(self.levels()),
            Question::Plan(order) => Answer::Ways(self.plan(&order)?),
            Question::Supply(order) => Answer::Supplied(Box::new(self.supply(&order)?)),
        })
    }
}

impl Respond for Agent {
    fn respond(&self, question: Question) -> Result<Answer, Error> {
        match question {
            Question::Level => Ok(Answer::Report(Box::new(self.report()?))),
            _ => Err(Error::NotConfigured {
                what: "a topology: only the key management server plans and orders".into(),
            }),
        }
    }
}

/// Where the socket of a node is.
pub fn socket(state: &Path) -> PathBuf {
    state.join("console")
}

/// The socket, open. It is removed on drop, and nobody is answered any more.
pub struct Console {
    path: PathBuf,
}

impl Console {
    /// Answers from now on, on threads of its own.
    pub fn open(state: &Path, who: Arc<dyn Respond>) -> Result<Self, Error> {
        let path = socket(state);
        let failed = |source| Error::File { path: path.clone(), source };
        fs::create_dir_all(state).map_err(failed)?;
        // One that was left by a crash; two processes of one node are kept apart by their listeners.
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path).map_err(failed)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(failed)?;
        std::thread::spawn(move || {
            for caller in listener.incoming().map_while(Result::ok) {
                let who = Arc::clone(&who);
                std::thread::spawn(move || {
                    // Whoever hangs up need not be answered.
                    let _ = attend(&caller, &*who);
                });
            }
        });
        Ok(Self { path })
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn attend(caller: &UnixStream, who: &dyn Respond) -> std::io::Result<()> {
    caller.set_read_timeout(Some(DEADLINE))?;
    let answer = match read_line(caller)? {
        Some(question) => who.respond(question).unwrap_or_else(|error| Answer::Failed {
            message: with_causes(&error),
            code: error.fault().exit_code(),
        }),
        None => Answer::Failed { message: "the question is not understood".into(), code: 2 },
    };
    write_line(caller, &answer)
}

fn read_line<T: DeserializeOwned>(stream: &UnixStream) -> std::io::Result<Option<T>> {
    let mut line = String::new();
    BufReader::new(stream.take(LINE_BYTES_MAX)).read_line(&mut line)?;
    Ok(serde_json::from_str(&line).ok())
}

fn write_line<T: Serialize>(mut stream: &UnixStream, value: &T) -> std::io::Result<()> {
    let mut text = serde_json::to_vec(value)?;
    text.push(b'\n');
    stream.write_all(&text)
}

/// Asks the node whose state folder this is.
///
/// Errors: [`Error::File`] when it does not run; [`Error::Peer`] with what it says.
pub fn ask(node: &SiteId, state: &Path, question: &Question) -> Result<Answer, Error> {
    let path = socket(state);
    let failed = |source| Error::File { path: path.clone(), source };
    let stream = UnixStream::connect(&path).map_err(failed)?;
    write_line(&stream, question).map_err(failed)?;
    match read_line(&stream).map_err(failed)? {
        Some(Answer::Failed { message, code }) => {
            Err(Error::Peer { peer: node.clone(), message, code })
        }
        Some(answer) => Ok(answer),
        None => Err(Error::Protocol { peer: node.clone() }),
    }
}
