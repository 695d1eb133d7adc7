//! A guest that is booted and prepared once, and of which any number of clones continue.

use std::path::Path;

use execution::Stop;
use guest_protocol::{FromAgent, Ready, Setup, ToAgent};

use super::{
    About, Debugger, Guest, GuestConfig, GuestError,
    booted::Booted,
    config::Birth,
    pauses::again,
    run::Addresses,
    saved,
    store::{Saved, Store},
};

/// A booted, prepared and saved guest. Threads may share it.
#[derive(Debug)]
pub struct Template {
    config: GuestConfig,
    /// Clones map its memory privately; nobody writes to it any more.
    saved: Saved,
    stop: Stop,
}

impl Template {
    /// The template in the folder `cache`, or one that is prepared now, after calling `booting`,
    /// and put there. Trouble with the cache costs only the time to boot.
    ///
    /// # Errors
    ///
    /// The guest cannot be had, or does not get ready in time: see [`GuestError`].
    pub fn cached(
        config: GuestConfig,
        setup: &Setup,
        cache: &Path,
        stop: &Stop,
        booting: &mut dyn FnMut(),
    ) -> Result<Self, GuestError> {
        config.check()?;
        let store = Store::prepared(cache, &config, setup)?;
        let make = || {
            booting();
            again(stop, || prepare(Booted::cached(&config, cache, stop)?, &config, setup, stop))
        };
        let (saved, _) = store.cached(config.counter_khz(), stop, |saved| spawn(&config, saved, None, stop), make)?;
        Ok(Self { config, saved, stop: stop.clone() })
    }

    /// Boots a guest, has its agent prepare the target, saves it, and ends it. A request to `stop`
    /// ends this and all that the template's guests do.
    ///
    /// # Errors
    ///
    /// The guest cannot be had, or does not get ready in time: see [`GuestError`].
    pub fn prepare(config: GuestConfig, setup: &Setup, stop: &Stop) -> Result<Self, GuestError> {
        config.check()?;
        let saved = prepare(Booted::boot(&config, stop)?, &config, setup, stop)?;
        Ok(Self { config, saved, stop: stop.clone() })
    }

    /// A guest that continues where the template was saved, with memory and window of its own, once
    /// it gets its first request.
    ///
    /// # Errors
    ///
    /// QEMU does not start or does not load the state.
    pub fn spawn(&self) -> Result<Guest, GuestError> {
        self.spawn_for(None)
    }

    /// A guest as [`spawn()`](Self::spawn) makes it. One for a `debugger` does not go on by itself
    /// when it gets its first request: the debugger has it do so.
    ///
    /// # Errors
    ///
    /// QEMU does not start or does not load the state.
    pub fn spawn_for(&self, debugger: Option<&Debugger>) -> Result<Guest, GuestError> {
        spawn(&self.config, &self.saved, debugger, &self.stop)
    }

    /// Gives facts about it.
    #[must_use]
    pub fn about(&self) -> &About {
        &self.saved.about
    }

    /// Gives the guest's configuration.
    #[must_use]
    pub fn config(&self) -> &GuestConfig {
        &self.config
    }
}

fn prepare(mut booted: Booted, config: &GuestConfig, setup: &Setup, stop: &Stop) -> Result<Saved, GuestError> {
    let setup = ToAgent::Setup(Setup { awake: config.exact, ..setup.clone() });
    match booted.ask(&setup, config, stop)? {
        (FromAgent::Ready(ready), setup_time) => booted.save(ready, setup_time, config, stop),
        (FromAgent::Refused(reason), _) => Err(GuestError::Refused(reason)),
        (other, _) => Err(GuestError::unexpected(&other, "ready")),
    }
}

fn spawn(config: &GuestConfig, saved: &Saved, debugger: Option<&Debugger>, stop: &Stop) -> Result<Guest, GuestError> {
    // QEMU has opened its disks; nobody else needs them.
    let (machine, _) = saved::resume(config, Birth::Clone, &saved.memory, saved, debugger, stop)?;
    let Ready { fired_log_address, returns_address, traces, .. } = &saved.about.ready;
    let addresses = Addresses { fired_log: *fired_log_address, returns: *returns_address, traces: traces.clone() };
    Ok(Guest::new(machine, addresses, config.exact, debugger.cloned(), stop.clone()))
}
