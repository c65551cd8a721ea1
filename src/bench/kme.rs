//! How many requests a second a key manager answers, and what that costs whom.

use serde::Serialize;

use super::local_kmes::LocalKmes;
use super::local_sites::cpu_seconds;
use crate::base::clock::Stopwatch;
use crate::etsi014::{Error, KeyId, SaeId};

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Connections to either key manager.
    pub connections: usize,
    /// Requests of each connection.
    pub requests: usize,
    /// Keys of a request.
    pub number: usize,
    /// Bits of a key.
    pub bits: u64,
}

/// What came of it. CPU seconds are those of the client, the master's and the slave's key manager.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Answered {
    /// `enc_keys`, `dec_keys` or both by turns.
    pub what: &'static str,
    /// Connections.
    pub connections: usize,
    /// Requests that were answered with keys. All were.
    pub requests: usize,
    /// Keys.
    pub keys: usize,
    /// Seconds that all of it took.
    pub seconds: f64,
    /// Requests a second.
    pub requests_per_second: f64,
    /// CPU seconds.
    pub cpu_seconds: [f64; 3],
}

/// Asks for keys at the first key manager, then fetches them at the second, then does both by turns.
/// Every key is compared.
pub fn measure(kmes: &LocalKmes, load: &Load) -> Result<Vec<Answered>, Error> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime =
        runtime.map_err(|source| Error::Serve { address: "this machine".into(), source })?;
    let mut answers = Vec::new();
    for what in ["enc_keys", "enc_keys and dec_keys"] {
        let both = what != "enc_keys";
        let before = cpu(kmes);
        let watch = Stopwatch::start();
        runtime.block_on(async {
            let tasks: Vec<_> = (0..load.connections)
                .map(|_| {
                    let ends = [kmes.endpoint(0, "sae-a1")?, kmes.endpoint(1, "sae-b1")?];
                    Ok(tokio::spawn(ask(ends, *load, both)))
                })
                .collect::<Result<_, Error>>()?;
            for task in tasks {
                task.await.map_err(|_| Error::Unfit { what: "a task panicked".into() })??;
            }
            Ok::<_, Error>(())
        })?;
        let seconds = watch.elapsed().as_secs_f64();
        let after = cpu(kmes);
        let asked = load.connections * load.requests;
        let requests = if both { 2 * asked } else { asked };
        answers.push(Answered {
            what,
            connections: load.connections,
            requests,
            keys: asked * load.number,
            seconds,
            requests_per_second: requests as f64 / seconds,
            cpu_seconds: [0, 1, 2].map(|who| after[who] - before[who]),
        });
    }
    Ok(answers)
}

fn cpu(kmes: &LocalKmes) -> [f64; 3] {
    [std::process::id(), kmes.process(0), kmes.process(1)].map(cpu_seconds)
}

async fn ask(
    ends: [crate::etsi014::client::Endpoint; 2],
    load: Load,
    both: bool,
) -> Result<(), Error> {
    let id = |text: &str| text.parse::<SaeId>().expect("a plain name");
    let (master, slave) = (id("sae-a1"), id("sae-b1"));
    let mut asks = ends[0].connect().await?;
    let mut fetches = if both { Some(ends[1].connect().await?) } else { None };
    for _ in 0..load.requests {
        let keys = asks.enc_keys(&slave, load.number, load.bits).await?;
        let Some(fetches) = &mut fetches else { continue };
        let ids: Vec<KeyId> = keys.iter().map(|key| key.id).collect();
        let fetched = fetches.dec_keys(&master, &ids, load.bits).await?;
        let same = keys.iter().zip(&fetched).all(|(a, b)| a.bytes.expose() == b.bytes.expose());
        if !same {
            return Err(Error::Unfit { what: "the two key managers gave different keys".into() });
        }
    }
    Ok(())
}
