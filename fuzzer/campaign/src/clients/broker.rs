//! LibAFL's broker: it passes on between the clients of a campaign what they find.
//!
//! ```text
//! client ──its own pages──▶ broker ──pages that all clients read──▶ client
//! ```
//!
//! Clients are threads of this process. So each is registered before its thread starts, and none
//! needs a port to connect to, at which anybody on this machine could.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
    time::Duration,
};

use libafl::{
    Error, HasMetadata,
    events::{
        Event, EventConfig, EventManagerHook, EventWithStats, LlmpEventManager, LlmpEventManagerBuilder,
        StdLlmpEventHook,
    },
    inputs::Input,
    monitors::Monitor,
    state::{HasCurrentTestcase, HasExecutions, HasImported, HasSolutions},
};
use libafl_bolts::{
    ClientId,
    llmp::{LlmpBroker, LlmpClient, LlmpSharedMap},
    shmem::{ShMem, ShMemProvider},
    tuples::tuple_list,
};

use super::{
    lifecycle::Lifecycle,
    shared_memory::{Provider, SharedMemory},
};
use crate::{error::CampaignError, input::PlanInput};

/// Pause of the broker when it has looked at every client.
const PAUSE: Duration = Duration::from_millis(5);
/// Size of a client's first page; later ones are as large as its messages need.
const PAGE_BYTES: usize = 1 << 20;

type Hooks<M> = (StdLlmpEventHook<PlanInput, M>, ());

/// The event manager of a client.
pub(crate) type Manager<S> = LlmpEventManager<(Imports, ()), PlanInput, S, SharedMemory, Provider>;

/// The hook that says which messages of others a client takes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Imports {
    /// All, to run them.
    Run,
    /// All, to pass them on.
    Forward,
    /// None: its plans come another way.
    Nothing,
}

impl<S> EventManagerHook<PlanInput, S> for Imports {
    fn pre_receive(&mut self, _: &mut S, from: ClientId, event: &EventWithStats<PlanInput>) -> Result<bool, Error> {
        if let (Self::Run, Event::NewTestcase { input, .. }) = (*self, event.event()) {
            tracing::debug!(plan = input.generate_name(None), from = from.0, "takes in a plan");
        }
        Ok(*self != Self::Nothing)
    }
}

/// A client's end of its connection to the broker, for the thread that the client is to run in.
#[derive(Debug)]
pub(crate) struct Connection {
    /// The page that the client writes to first.
    own: SharedMemory,
    /// The page that the broker writes to first.
    broadcast: SharedMemory,
}

impl Connection {
    /// Makes the event manager of a client that takes in what `imports` says.
    ///
    /// # Errors
    ///
    /// There is no descriptor to be had.
    pub(crate) fn manager<S>(self, imports: Imports) -> Result<Manager<S>, Error>
    where
        S: HasExecutions + HasMetadata + HasImported + HasSolutions<PlanInput> + HasCurrentTestcase<PlanInput>,
    {
        let client = LlmpClient::on_existing_shmem(Provider::default(), self.own, None, self.broadcast, None)?;
        // Coverage of one client means nothing to another: each runs for itself the plans it takes
        // in.
        LlmpEventManagerBuilder::new().hooks(tuple_list!(imports)).build_from_client(client, EventConfig::AlwaysUnique)
    }
}

/// The broker of a campaign.
pub(crate) struct Broker<M> {
    broker: LlmpBroker<Hooks<M>, SharedMemory, Provider>,
    provider: Provider,
}

impl<M: Monitor> Broker<M> {
    /// Makes a broker without clients. It tells `monitor` the statistics of those to come.
    ///
    /// # Errors
    ///
    /// There is no memory to be had.
    pub(crate) fn new(monitor: M) -> Result<Self, Error> {
        let provider = Provider::default();
        // It keeps its pages: LLMP counts a page as read when one client has read it.
        let broker = LlmpBroker::new(provider.clone(), tuple_list!(StdLlmpEventHook::new(monitor)?))?;
        Ok(Self { broker, provider })
    }

    /// Registers a client.
    ///
    /// # Errors
    ///
    /// There is no memory to be had.
    pub(crate) fn connect(&mut self) -> Result<Connection, Error> {
        let first = self.provider.first().ok_or_else(|| Error::illegal_state("the broker has no page"))?;
        let broadcast = self.provider.shmem_from_description(first)?;
        let page = self.provider.new_shmem(PAGE_BYTES)?;
        let own = page.description();
        let id = self.broker.inner().peek_next_client_id();
        // This writes the page's head, which tells the client its number.
        let page = LlmpSharedMap::new(id, page);
        let own = self.provider.shmem_from_description(own)?;
        self.broker.inner_mut().register_client(page);
        Ok(Connection { own, broadcast })
    }

    /// Passes messages on until `clients` clients have ended. The campaign has failed when it does
    /// not get there.
    ///
    /// # Errors
    ///
    /// A client's messages make no sense, statistics cannot be written, or this panics.
    pub(crate) fn run(&mut self, clients: usize, lifecycle: &Lifecycle) -> Result<(), CampaignError> {
        // LibAFL's broker cannot be moved to a thread whose panic would be its end alone.
        let run = catch_unwind(AssertUnwindSafe(|| {
            let life = lifecycle.broker(clients);
            loop {
                // Looked at first: all that clients sent before is read below.
                let last = life.is_last();
                self.broker.broker_once().inspect_err(|_| lifecycle.fail())?;
                if last {
                    return Ok(());
                }
                life.stop_starting();
                thread::sleep(PAUSE);
            }
        }));
        run.unwrap_or(Err(CampaignError::Panic))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use execution::Stop;
    use libafl::monitors::{SimpleMonitor, stats::ClientStatsManager};

    use super::*;
    use crate::{
        clients::state::{State, new_state},
        fake,
        kernels::Role,
        statistics::{CampaignMonitor, STATISTICS, Statistics},
    };
    use libafl::events::{EventFirer, ProgressReporter, SendExiting};

    struct Panics;

    impl Monitor for Panics {
        fn display(&mut self, _: &mut ClientStatsManager, _: &str, _: ClientId) -> Result<(), Error> {
            panic!("a defect");
        }
    }

    /// Runs a broker with this monitor and a client that tells statistics of it.
    fn run<M: Monitor>(monitor: M, folder: &std::path::Path) -> (Result<(), CampaignError>, Lifecycle) {
        let mut broker = Broker::new(monitor).unwrap();
        let connection = broker.connect().unwrap();
        let lifecycle = Lifecycle::new(Stop::new(), None);
        let opened = fake::open(folder);
        let known = fake::kernels().get(&opened, &fake::kernel("fake"), Role::Explorer).unwrap();
        let result = thread::scope(|scope| {
            let life = lifecycle.client();
            scope.spawn(|| {
                let mut manager = connection.manager::<State>(Imports::Run).unwrap();
                let mut state = new_state(1, &opened, &known, &mut (), &mut ()).unwrap();
                let told = Statistics { executions: 7, fired: 5, ..Statistics::default() };
                let stats = STATISTICS.iter().map(|row| (row.name.into(), row.user_stats(&told))).collect();
                let event = Event::UpdateUserStatsMap { stats, phantom: std::marker::PhantomData };
                manager.fire(&mut state, EventWithStats::with_current_time(event, 7)).unwrap();
                manager.report_progress(&mut state).unwrap();
                manager.send_exiting().unwrap();
                life.wait();
            });
            broker.run(1, &lifecycle)
        });
        (result, lifecycle)
    }

    #[test]
    fn a_broker_that_panics_ends_the_campaign() {
        let folder = tempfile::tempdir().unwrap();
        let (result, lifecycle) = run(Panics, folder.path());
        assert!(matches!(result, Err(CampaignError::Panic)), "{result:?}");
        assert!(lifecycle.must_end());
    }

    #[test]
    fn monitors_of_libafl_join_the_campaigns() {
        let folder = tempfile::tempdir().unwrap();
        let stats = folder.path().join("stats.jsonl");
        let campaign = CampaignMonitor::new(&stats, Box::new(io::sink()), 0, None).unwrap();
        let shown = Arc::new(Mutex::new(String::new()));
        let other = SimpleMonitor::new(|text: &str| shown.lock().unwrap().push_str(text));
        run(tuple_list!(campaign, other), folder.path()).0.unwrap();
        let line: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(stats).unwrap()).unwrap();
        assert_eq!((&line["fired"], &line["guests"]), (&5.into(), &0.into()));
        let shown = shown.lock().unwrap();
        assert!(shown.contains("fired: 5") && shown.contains("executions: 7"), "{shown}");
    }
}
