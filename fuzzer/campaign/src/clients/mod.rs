//! The clients of a campaign: threads, each with guests of its own and LibAFL's loop around them.

mod broker;
mod lifecycle;
mod report;
mod search;
mod search_loop;
mod setup;
mod shared;
mod shared_memory;
mod state;

use execution::Runner;
use libafl::events::SendExiting;

use self::{search::search, state::State};

pub use self::setup::{Client, ClientSetup, StartClient};
pub(crate) use self::{
    broker::{Broker, Connection, Imports, Manager},
    lifecycle::Lifecycle,
    shared::{Shared, time_before},
};
use crate::{error::CampaignError, kernels::Role};

/// Runs client number `number`, from 0, until the campaign ends.
///
/// # Errors
///
/// The client cannot start, or its search cannot go on. That ends the campaign.
pub(crate) fn run_client<R: Runner>(
    number: usize,
    client: Client<'_, R>,
    connection: Connection,
    shared: &Shared,
) -> Result<(), CampaignError> {
    let lifecycle = &shared.lifecycle;
    let mut life = lifecycle.client();
    let setup = (client.start)();
    life.started();
    let setup = match setup {
        Ok(setup) => setup,
        Err(_) if lifecycle.is_stopped() => return Ok(()),
        Err(error) => {
            lifecycle.fail();
            return Err(CampaignError::Start(error));
        }
    };
    let imports = match client.role {
        Role::Explorer => Imports::Run,
        Role::Checker => Imports::Nothing,
    };
    let searched = (|| {
        let mut manager = connection.manager::<State>(imports)?;
        let result = search(number, client.role, setup, shared, &mut manager);
        manager.send_exiting()?;
        Ok::<_, CampaignError>((result, manager))
    })();
    if !matches!(searched, Ok((Ok(()), _))) {
        lifecycle.fail();
    }
    // The manager stays until then: the broker reads its memory.
    life.wait();
    searched?.0
}
