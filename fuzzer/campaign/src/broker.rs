//! LibAFL's broker: what connects the clients of a campaign, each a thread with guests of its own.

use std::{
    net::{Ipv4Addr, TcpListener},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use libafl::{
    Error,
    events::{
        Event, EventConfig, EventManagerHook, EventWithStats, LlmpEventManager, LlmpEventManagerBuilder,
        StdLlmpEventHook,
    },
    inputs::Input,
};
use libafl_bolts::{
    ClientId,
    llmp::{Listener, LlmpBroker},
    tuples::tuple_list,
};

use super::{
    input::PlanInput,
    monitor::CampaignMonitor,
    shared_memory::{Provider, SharedMemory},
    worker::Common,
};

/// How long the broker sleeps when it has looked at every client.
const PAUSE: Duration = Duration::from_millis(5);

type Hooks = (StdLlmpEventHook<PlanInput, CampaignMonitor>, ());

/// What a client talks to the others through.
pub(super) type Manager<S> = LlmpEventManager<(Imports, ()), PlanInput, S, SharedMemory, Provider>;

/// Whether a client takes in what others found. One whose plans come another way does not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Imports(pub(super) bool);

impl<S> EventManagerHook<PlanInput, S> for Imports {
    fn pre_receive(&mut self, _: &mut S, from: ClientId, event: &EventWithStats<PlanInput>) -> Result<bool, Error> {
        if let Event::NewTestcase { input, .. } = event.event()
            && self.0
        {
            tracing::debug!(plan = input.generate_name(None), from = from.0, "takes in a plan");
        }
        Ok(self.0)
    }
}

/// The broker, before its clients are there.
pub(super) struct Broker {
    broker: LlmpBroker<Hooks, SharedMemory, Provider>,
    port: u16,
}

/// What broker and clients know of each other's end: memory that one side still reads must not go away.
#[derive(Debug, Default)]
pub(super) struct Ends {
    /// Clients that got ready, or failed to.
    ready: AtomicUsize,
    clients: AtomicUsize,
    broker: AtomicBool,
}

/// A client's promise to say that it has ended, however that comes about.
pub(super) struct ClientEnd<'a>(&'a Ends);

struct BrokerEnd<'a>(&'a Ends);

impl Ends {
    /// For a client to hold as long as it runs.
    pub(super) fn client(&self) -> ClientEnd<'_> {
        ClientEnd(self)
    }

    /// Takes in that a client is ready, or will never be.
    pub(super) fn ready(&self) {
        self.ready.fetch_add(1, Ordering::AcqRel);
    }

    fn unready(&self, clients: usize) -> usize {
        clients.saturating_sub(self.ready.load(Ordering::Acquire))
    }
}

impl ClientEnd<'_> {
    /// Says that the client has sent its last message, and waits until the broker has read it.
    pub(super) fn wait(self) {
        let ends = self.0;
        drop(self);
        while !ends.broker.load(Ordering::Acquire) {
            thread::sleep(PAUSE);
        }
    }
}

impl Drop for ClientEnd<'_> {
    fn drop(&mut self) {
        self.0.clients.fetch_add(1, Ordering::AcqRel);
    }
}

impl Drop for BrokerEnd<'_> {
    fn drop(&mut self) {
        self.0.broker.store(true, Ordering::Release);
    }
}

impl Broker {
    /// A broker that clients of this machine can connect to, and whose statistics go to `monitor`.
    ///
    /// # Errors
    ///
    /// There is no port or no memory to be had.
    pub(super) fn new(monitor: CampaignMonitor) -> Result<Self, Error> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let mut broker = LlmpBroker::new(Provider, tuple_list!(StdLlmpEventHook::new(monitor)?))?;
        // The thread waits for clients as long as the process lives.
        broker.inner_mut().launch_listener(Listener::Tcp(listener))?;
        Ok(Self { broker, port })
    }

    /// The port of the loopback device at which clients connect.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Passes messages on until `clients` clients have ended. Those that never got ready are told to stop when the
    /// campaign's time is up and the others have ended.
    ///
    /// # Errors
    ///
    /// A client's messages make no sense, or statistics cannot be written. The campaign has failed then.
    pub(super) fn run(&mut self, clients: usize, common: &Common) -> Result<(), Error> {
        let ends = &common.ends;
        let _end = BrokerEnd(ends);
        loop {
            let ended = ends.clients.load(Ordering::Acquire);
            self.broker.broker_once().inspect_err(|_| common.failed.store(true, Ordering::Relaxed))?;
            if ended >= clients {
                return Ok(());
            }
            if common.must_stop() && ended + ends.unready(clients) >= clients {
                common.stop.request();
            }
            thread::sleep(PAUSE);
        }
    }
}

/// Connects a client to the broker at `port`.
///
/// # Errors
///
/// The broker cannot be reached.
pub(super) fn connect<S>(port: u16, imports: Imports) -> Result<Manager<S>, Error>
where
    S: libafl::state::HasExecutions
        + libafl::HasMetadata
        + libafl::state::HasImported
        + libafl::state::HasSolutions<PlanInput>
        + libafl::state::HasCurrentTestcase<PlanInput>,
{
    // What one client covered means nothing to another one: each runs for itself the plans that it takes in.
    let builder = LlmpEventManagerBuilder::new().hooks(tuple_list!(imports));
    builder.build_on_port(Provider, port, EventConfig::AlwaysUnique)
}
