//! Whole key networks in one process: every node an agent with its own folder, sockets and threads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tempfile::TempDir;

use super::protocol::{Request, Transaction};
use super::settings::LinkSettings as LinkOfNode;
use super::*;
use crate::base::clock::Stopwatch;
use crate::base::{BitRate, ByteCount, Clock, SiteId};
use crate::key::ledger::{self, Role};
use crate::key::pool::{self, Block, BlockId, Description, State};
use crate::key::{Class, KeyStore, LinkSettings, Pool, SimulatedLink, Source, StreamId};
use crate::net::{self, Closer, Dialer, Listener, Traffic};

fn site(name: &str) -> SiteId {
    name.parse().unwrap()
}

/// A running network.
struct World {
    folder: TempDir,
    topology: Topology,
    agents: BTreeMap<SiteId, Arc<Agent>>,
    server: Server,
    notices: Arc<Mutex<Vec<String>>>,
    closers: BTreeMap<SiteId, Closer>,
    threads: Vec<JoinHandle<()>>,
}

/// What a world is made of.
struct Plan {
    topology: Topology,
    /// Key of each direction of each link at the start, in blocks.
    blocks: u64,
    block_bytes: u64,
    /// Links whose modules make different keys at their two ends.
    differing: Vec<[SiteId; 2]>,
}

impl Plan {
    fn tokyo(blocks: u64) -> Self {
        let mut topology = Topology::load("tokyo-2022").unwrap();
        let block_bytes = 32 << 10;
        // What the links have is what they are meant to have.
        topology.links.iter_mut().for_each(|link| link.stock.0 = 2 * blocks * block_bytes);
        Self { topology, blocks, block_bytes, differing: Vec::new() }
    }
}

fn quick() -> net::Settings {
    net::Settings {
        key_wait: Duration::from_millis(500),
        deadline: Duration::from_secs(20),
        ..net::Settings::default()
    }
}

fn listener() -> Listener {
    Listener::bind("127.0.0.1:0").unwrap()
}

/// The description of a simulated link, the same for both ends unless it is to differ.
fn describe(
    folder: &Path,
    ends: &[SiteId; 2],
    at: &SiteId,
    stock: u64,
    differing: bool,
) -> PathBuf {
    let suffix = if differing { at.as_str() } else { "both" };
    let path = folder.join(format!("{}-{}-{suffix}.json", ends[0], ends[1]));
    if !path.exists() {
        let (rate, stock) = (BitRate(8), ByteCount(2 * stock));
        SimulatedLink::create(&path, ends.clone(), rate, stock, &Clock::system()).unwrap();
    }
    path
}

impl World {
    fn start(plan: &Plan) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let kms = site("kms");
        let notices: Arc<Mutex<Vec<String>>> = Arc::default();
        let told = Arc::clone(&notices);
        let notice: OnNotice = Arc::new(move |text| told.lock().unwrap().push(text));
        let names: Vec<SiteId> = plan.topology.nodes.iter().map(|n| n.name.clone()).collect();
        let sockets: BTreeMap<_, _> =
            names.iter().map(|name| (name.clone(), (listener(), listener()))).collect();
        let address = |name: &SiteId| sockets[name].0.local_address().to_string();
        // The keys of the sessions between agents, and between agents and server.
        let control = |node: &SiteId, peers: &[SiteId]| {
            let link = |peer: &SiteId| {
                let mut ends = [node.clone(), peer.clone()];
                ends.sort();
                let folder = at.join("control");
                std::fs::create_dir_all(&folder).unwrap();
                let file = describe(&folder, &ends, node, 4 << 20, false);
                LinkSettings::simulated(peer.clone(), &file)
            };
            let links: Vec<_> = peers.iter().map(link).collect();
            let state = at.join(node.as_str());
            KeyStore::open(node.clone(), &state, &links, Clock::system()).unwrap()
        };
        let dialer = |peer: &SiteId, keys: &KeyStore| {
            Dialer::new(address(peer), peer.clone(), keys.clone(), quick(), Traffic::default())
        };
        let mut agents = BTreeMap::new();
        for name in &names {
            let peers = plan.topology.neighbours(name);
            let keys = control(name, &[peers.clone(), vec![kms.clone()]].concat());
            let links = peers.iter().map(|peer| {
                let ends = plan.topology.link(name, peer).unwrap().ends.clone();
                let stock = plan.blocks * plan.block_bytes;
                let differing = plan.differing.contains(&ends);
                LinkOfNode {
                    peer: peer.clone(),
                    relay: Some(sockets[peer].1.local_address().to_string()),
                    qkd: Some(describe(at, &ends, name, stock, differing)),
                    block: ByteCount(plan.block_bytes),
                    latency_ms: 0,
                    loss: 0.0,
                }
            });
            let settings = Settings {
                server: Some(kms.clone()),
                floor: ByteCount(1024),
                links: links.collect(),
                ..Settings::default()
            };
            let opening = Opening {
                node: name.clone(),
                state: at.join(name.as_str()),
                settings,
                neighbours: peers.iter().map(|peer| (peer.clone(), dialer(peer, &keys))).collect(),
                control: keys,
                net: quick(),
                notice: Arc::clone(&notice),
                clock: Clock::system(),
            };
            agents.insert(name.clone(), Agent::open(opening).unwrap());
        }
        let keys = control(&kms, &names);
        let dialers: Vec<_> = names.iter().map(|name| dialer(name, &keys)).collect();
        let server =
            Server::new(plan.topology.clone(), dialers, ByteCount(1024), Arc::clone(&notice));
        let (mut threads, mut closers) = (Vec::new(), BTreeMap::new());
        for (name, (control, relays)) in sockets {
            closers.insert(name.clone(), control.closer());
            let agent = Arc::clone(&agents[&name]);
            threads.push(std::thread::spawn(move || agent.serve(&control, &relays).unwrap()));
        }
        let topology = plan.topology.clone();
        Self { folder, topology, agents, server: server.unwrap(), notices, closers, threads }
    }

    /// Waits until a condition holds.
    fn wait_for(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let watch = Stopwatch::start();
        while !holds(self) {
            let said = self.notices.lock().unwrap();
            assert!(watch.elapsed() < Duration::from_secs(40), "{what}: {said:#?}");
            drop(said);
            Clock::system().sleep(Duration::from_millis(10));
        }
    }

    /// A world whose stock is agreed on everywhere.
    fn ready(plan: &Plan) -> Self {
        let world = Self::start(plan);
        let stock = plan.blocks * plan.block_bytes;
        world.wait_for("the stock arrives", |world| {
            let reports = world.agents.values().map(|agent| agent.report().unwrap());
            let mut links = reports.flat_map(|report| report.links);
            links.all(|link| link.outgoing.0 == stock && link.incoming.0 == stock)
        });
        world
    }

    fn agent(&self, name: &str) -> &Arc<Agent> {
        &self.agents[&site(name)]
    }

    fn order(&self, from: &str, to: &str, bytes: u64, back: u64, disjoint: usize) -> Order {
        let (bytes, back) = (ByteCount(bytes), ByteCount(back));
        Order { from: site(from), to: site(to), bytes, back, disjoint }
    }

    /// The pool of the site at a node.
    fn supply_pool(&self, node: &str, peer: &str) -> Pool {
        let state = self.folder.path().join(node).join("supply");
        Pool::open(&pool::folder(&state, &site(peer)), site(node), Clock::system()).unwrap()
    }

    fn supplied_blocks(&self, node: &str, peer: &str) -> Vec<Block> {
        self.supply_pool(node, peer).blocks().unwrap()
    }

    /// The keys that the site at a node has for a peer.
    fn supply_keys(&self, node: &str, peer: &str) -> KeyStore {
        let state = self.folder.path().join(node).join("supply");
        let links = [LinkSettings::pooled(site(peer))];
        KeyStore::open(site(node), &state, &links, Clock::system()).unwrap()
    }

    /// Bytes that both ledgers of every direction of a link say were spent; checks every one.
    fn audit(&self) -> BTreeMap<(SiteId, SiteId), u64> {
        let mut spent = BTreeMap::new();
        for (name, agent) in &self.agents {
            for peer in self.topology.neighbours(name) {
                let sent = agent.ledger(&peer, Role::Sender).unwrap();
                let received = self.agents[&peer].ledger(name, Role::Follower).unwrap();
                let summary = ledger::check(&sent, &received).unwrap();
                assert_eq!(summary.reserved_units, summary.claimed_units, "{name} to {peer}");
                if summary.reserved_units > 0 {
                    spent.insert((name.clone(), peer), summary.reserved_units * 16);
                }
            }
        }
        spent
    }

    /// Whether any file below the folder of a node holds these bytes.
    fn is_on_disk_of(&self, node: &str, bytes: &[u8]) -> bool {
        fn walk(folder: &Path, bytes: &[u8]) -> bool {
            std::fs::read_dir(folder).unwrap().any(|entry| {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    return walk(&path, bytes);
                }
                let content = std::fs::read(&path).unwrap_or_default();
                memchr::memmem::find(&content, bytes).is_some()
            })
        }
        walk(&self.folder.path().join(node), bytes)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.agents.values().for_each(|agent| agent.stop());
        self.closers.values().for_each(Closer::close);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// Pairs of nodes, as the ledgers name them.
fn hops(path: &[&str]) -> Vec<(SiteId, SiteId)> {
    path.windows(2).map(|pair| (site(pair[0]), site(pair[1]))).collect()
}

#[test]
fn five_nodes_relay_key_between_nodes_that_have_no_link() {
    let world = World::ready(&Plan::tokyo(4));
    assert!(world.audit().is_empty());
    let catalogue = |node: &str, peer: &str| -> Vec<(BlockId, State, Option<u64>)> {
        let blocks = world.agent(node).pool(&site(peer)).unwrap().blocks().unwrap();
        blocks.into_iter().map(|b| (b.description.id, b.state, b.position)).collect()
    };
    assert_eq!(catalogue("nict-1", "nict-2").len(), 8);
    assert_eq!(catalogue("nict-1", "nict-2"), catalogue("nict-2", "nict-1"));
    let order = world.order("nict-2", "otemachi", 4096, 1024, 1);
    let planned = world.server.plan(&order).unwrap();
    let supplied = world.server.supply(&order).unwrap();
    let path = ["nict-2", "nict-1", "otemachi"];
    assert_eq!(supplied.paths, [path.map(site)]);
    assert_eq!(planned[0].nodes, supplied.paths[0]);

    // Each link of the path gave what was relayed, its mask and its tag's key; no other link anything.
    let per_link = 4096 + 1024 + 16 + 32;
    let spent = world.audit();
    assert_eq!(spent.keys().cloned().collect::<Vec<_>>(), {
        let mut hops = hops(&path);
        hops.sort();
        hops
    });
    assert!(spent.values().all(|bytes| *bytes == per_link), "{spent:?}");
    assert_eq!(supplied.spent, ByteCount(2 * per_link));

    // Both ends have the same two blocks, ready, with the relay that saw them.
    let (a, b) =
        (world.supplied_blocks("nict-2", "otemachi"), world.supplied_blocks("otemachi", "nict-2"));
    assert_eq!(a.len(), 2);
    for (own, other) in a.iter().zip(&b) {
        assert_eq!((own.state, own.range()), (State::Ready, other.range()));
        assert_eq!((other.state, own.description.id), (State::Ready, other.description.id));
        let Description { source, class, seen_by, .. } = &own.description;
        assert_eq!((*source, *class), (Source::Relayed, Class::Computational));
        assert_eq!(*seen_by, [site("nict-1")].into());
    }
    let mut sender = world.supply_keys("nict-2", "otemachi").sender(&site("otemachi")).unwrap();
    let mut follower = world.supply_keys("otemachi", "nict-2").follower(&site("nict-2")).unwrap();
    assert!(!sender.provenance().may_share_with(&site("nict-2"), &site("otemachi")));
    for node in ["nict-1", "nict-3", "nict-4"] {
        let id = a[0].description.id;
        let key = std::fs::read(
            world.supply_pool("nict-2", "otemachi").folder().join(format!("{id}.block")),
        );
        let key = &key.unwrap()[pool::HEADER_BYTES..];
        assert!(world.is_on_disk_of("otemachi", key), "the search finds what is there");
        assert!(!world.is_on_disk_of(node, key));
    }
    let lease = sender.take(4096).unwrap();
    let key = follower.fetch(lease.range()).unwrap().into_chunk();
    assert!(lease.into_chunk()[..] == key[..]);

    // Neighbours get key of their link, which needs no transfer and no relay.
    let supplied = world.server.supply(&world.order("nict-3", "nict-4", 160, 0, 1)).unwrap();
    assert_eq!(supplied.paths[0].len(), 2);
    let blocks = world.supplied_blocks("nict-4", "nict-3");
    assert_eq!(blocks[0].description.source, Source::Simulated);
    assert!(blocks[0].description.seen_by.is_empty());
    world.audit();
    assert_eq!(*world.notices.lock().unwrap(), Vec::<String>::new());
}

#[test]
fn two_disjoint_paths_give_key_that_no_node_has_seen() {
    let world = World::ready(&Plan::tokyo(4));
    let supplied = world.server.supply(&world.order("nict-2", "otemachi", 2048, 0, 2)).unwrap();
    let mut paths = supplied.paths.clone();
    paths.sort();
    let (one, other) =
        (["nict-2", "nict-1", "otemachi"], ["nict-2", "nict-3", "nict-4", "otemachi"]);
    assert_eq!(paths, [one.map(site).to_vec(), other.map(site).to_vec()]);
    let spent = world.audit();
    assert_eq!(spent.len(), 5);
    assert!(spent.values().all(|bytes| *bytes == 2048 + 48));
    for (node, peer) in [("nict-2", "otemachi"), ("otemachi", "nict-2")] {
        let blocks = world.supplied_blocks(node, peer);
        let Description { seen_by, parts_seen_by, .. } = &blocks[0].description;
        assert!(seen_by.is_empty() && parts_seen_by.len() == 2);
        assert!(parts_seen_by.contains(&[site("nict-1")].into()));
    }
    let mut sender = world.supply_keys("nict-2", "otemachi").sender(&site("otemachi")).unwrap();
    let mut follower = world.supply_keys("otemachi", "nict-2").follower(&site("nict-2")).unwrap();
    assert!(sender.provenance().may_share_with(&site("nict-2"), &site("otemachi")));
    let lease = sender.take(2048).unwrap();
    let key = follower.fetch(lease.range()).unwrap().into_chunk();
    assert!(lease.into_chunk()[..] == key[..]);
    let impossible = world.server.supply(&world.order("nict-2", "otemachi", 2048, 0, 3));
    assert!(matches!(impossible, Err(Error::NoPath { .. })));
}

#[test]
fn a_relay_that_changes_the_key_is_found_out_by_the_ends() {
    let world = World::ready(&Plan::tokyo(2));
    world.agent("nict-1").corrupt.store(true, Ordering::SeqCst);
    // Its own tag is right: it holds the keys of both its links.
    let failed = world.server.supply(&world.order("nict-2", "otemachi", 1024, 1024, 1));
    assert!(matches!(failed, Err(Error::Differs { .. })), "{failed:?}");
    for (node, peer) in [("nict-2", "otemachi"), ("otemachi", "nict-2")] {
        let blocks = world.supplied_blocks(node, peer);
        assert!(blocks.iter().all(|block| block.state == State::Lost), "{blocks:?}");
    }
    world.agent("nict-1").corrupt.store(false, Ordering::SeqCst);
    world.server.supply(&world.order("nict-2", "otemachi", 1024, 1024, 1)).unwrap();
    world.audit();
}

#[test]
fn a_hop_that_fails_releases_the_others_and_another_way_is_taken() {
    let world = World::ready(&Plan::tokyo(2));
    // The node answers the server and has nothing left for its next hop, as the server will find.
    let nict_1 = world.agent("nict-1");
    let stock = nict_1.links().level(&site("otemachi")).unwrap().outgoing.remaining;
    let neighbour = nict_1.neighbour(&site("otemachi")).unwrap();
    let order = world.order("nict-2", "otemachi", 2048, 0, 1);
    assert_eq!(world.server.plan(&order).unwrap()[0].nodes.len(), 3);
    // Between plan and order somebody else takes it.
    let survey_was_before = || {
        let (lease, ..) = nict_1.spend(neighbour, ByteCount(stock.0 - 2048)).unwrap();
        drop(lease);
    };
    let transaction: Transaction = BlockId([1; 16]);
    let prepare = |node: &str, next: &str| {
        let request = Request::Prepare { transaction, next: site(next), bytes: 2064 };
        world.agent(node).answer(&site("kms"), request, None)
    };
    prepare("nict-2", "nict-1").unwrap();
    survey_was_before();
    assert!(prepare("nict-1", "otemachi").is_err(), "it keeps its floor");
    let held = |node: &str| world.agent(node).relays().contains_key(&transaction);
    assert!(held("nict-2") && held("nict-1"));
    for node in ["nict-2", "nict-1"] {
        let request = Request::Release { transactions: vec![transaction], delivery: None };
        world.agent(node).answer(&site("kms"), request, None).unwrap();
        assert!(!held(node));
    }
    let commit = Request::Commit { transaction, direct: false };
    let late = world.agent("nict-2").answer(&site("kms"), commit, None);
    assert!(matches!(late, Err(Error::NotPrepared)), "what was released is gone");

    // The server finds the other way by itself, and what was released is never used.
    let supplied = world.server.supply(&order).unwrap();
    assert_eq!(supplied.paths[0].len(), 4);
}

#[test]
fn the_server_takes_another_way_when_a_node_dies_after_the_survey() {
    let world = World::ready(&Plan::tokyo(2));
    let order = world.order("nict-2", "otemachi", 512, 0, 1);
    // The agent of nict-1 still answers, but its neighbour refuses every reservation from it.
    let sent = world.agent("nict-1").links().sender(&site("otemachi")).unwrap().mark();
    let mut ahead = world.agent("otemachi").links().follower(&site("nict-1")).unwrap();
    let taken = crate::key::KeyRange { position: sent, units: 40 };
    ahead.accept(taken, taken).unwrap();
    let supplied = world.server.supply(&order).unwrap();
    assert_eq!(supplied.paths[0].len(), 4, "round the ring");
    let said = world.notices.lock().unwrap().join("\n");
    assert!(said.contains("looking for another way"), "{said}");
    for agent in world.agents.values() {
        assert!(agent.relays().is_empty(), "nothing is held");
    }
}

#[test]
fn blocks_that_differ_are_given_up_at_both_ends() {
    let mut plan = Plan::tokyo(2);
    let link = plan.topology.links[0].ends.clone();
    plan.differing.push(link.clone());
    let world = World::start(&plan);
    let lost = |agent: &Agent, peer: &SiteId| {
        let link = agent.report().unwrap().links.into_iter().find(|link| link.peer == *peer);
        let link = link.unwrap();
        (link.lost.0, link.pending.0, link.outgoing.0)
    };
    let all = 4 * plan.block_bytes;
    world.wait_for("the blocks are given up", |world| {
        let [a, b] = &link;
        [(a, b), (b, a)].iter().all(|(own, peer)| lost(&world.agents[*own], peer) == (all, 0, 0))
    });
    let [a, b] = &link;
    // The pools hold no byte of them.
    for (own, peer) in [(a, b), (b, a)] {
        for block in world.agents[own].pool(peer).unwrap().blocks().unwrap() {
            let file = format!("{}.block", block.description.id);
            let path = world.agents[own].pool(peer).unwrap().folder().join(file);
            assert_eq!(std::fs::metadata(path).unwrap().len(), pool::HEADER_BYTES as u64);
        }
    }
    assert!(world.notices.lock().unwrap().iter().any(|notice| notice.contains("differs")));
    world.wait_for("other links are ready", |world| {
        lost(world.agent("nict-3"), &site("nict-4")).2 == 2 * plan.block_bytes
    });
}

#[test]
fn blocks_that_only_one_end_has_are_not_used() {
    let world = World::ready(&Plan::tokyo(1));
    let stream = StreamId { sender: site("nict-1"), receiver: site("nict-2") };
    let id = BlockId::fresh().unwrap();
    let block = Description::key(id, stream, Source::Simulated, Class::Computational);
    let pool = world.agent("nict-1").pool(&site("nict-2")).unwrap();
    pool.append(block, &[7; 4096]).unwrap();
    let neighbour = world.agent("nict-1").neighbour(&site("nict-2")).unwrap();
    world.agent("nict-1").agree(neighbour).unwrap();
    assert_eq!(pool.block(id).unwrap().state, State::Pending);
}

#[test]
fn a_link_whose_neighbour_was_away_comes_up_again() {
    let world = World::ready(&Plan::tokyo(1));
    let neighbour = world.agent("nict-1").neighbour(&site("nict-2")).unwrap();
    neighbour.up.store(false, Ordering::SeqCst);
    let state = |world: &World| {
        let levels = world.server.levels();
        let of = |level: &&Level| level.from == site("nict-1") && level.to == site("nict-2");
        levels.iter().find(of).unwrap().state.clone()
    };
    world.wait_for("the neighbour answers", |world| state(world) == "up");
}

#[test]
fn strangers_and_neighbours_may_not_order_relays() {
    let world = World::ready(&Plan::tokyo(1));
    let transaction = BlockId([1; 16]);
    for peer in ["nict-2", "mallory"] {
        for request in [
            Request::Report,
            Request::Commit { transaction, direct: true },
            Request::Release { transactions: vec![], delivery: None },
            Request::Prepare { transaction, next: site("nict-2"), bytes: 64 },
        ] {
            let answered = world.agent("nict-1").answer(&site(peer), request, None);
            assert!(matches!(answered, Err(Error::NotPermitted { .. })));
        }
    }
    let range = crate::key::KeyRange { position: 0, units: 4 };
    for peer in ["kms", "mallory", "otemachi"] {
        let request = Request::Reserve { transaction, range, reservation: range };
        let answered = world.agent("nict-2").answer(&site(peer), request, None);
        assert!(matches!(answered, Err(Error::NotPermitted { .. })));
    }
}

#[test]
fn the_supply_of_a_relay_carries_a_session_of_the_sites() {
    let mut plan = Plan::tokyo(2);
    plan.block_bytes = 256 << 10;
    let world = World::ready(&plan);
    let order = world.order("nict-3", "nict-1", 200_000, 200_000, 1);
    world.server.supply(&order).unwrap();
    let (caller, called) =
        (world.supply_keys("nict-3", "nict-1"), world.supply_keys("nict-1", "nict-3"));
    let listener = listener();
    let address = listener.local_address().to_string();
    let heard = std::thread::spawn(move || {
        let mut connection = listener.accept().unwrap().handshake(&called, &quick()).unwrap();
        let message = connection.receive().unwrap().unwrap();
        connection.send(1, b"heard").unwrap();
        message.payload.to_vec()
    });
    let mut connection = net::dial(&address, &site("nict-1"), &caller, &quick()).unwrap();
    connection.send(1, b"by relayed key").unwrap();
    assert_eq!(&connection.receive().unwrap().unwrap().payload[..], b"heard");
    assert_eq!(heard.join().unwrap(), b"by relayed key");
}
