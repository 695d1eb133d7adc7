//! The conversation with the host: one target, then one execution after another.

use std::{mem, time::Instant};

use anyhow::{Context, Result, anyhow, bail};
use fault_plan::{FaultPlan, InjectableFunction};
use guest_protocol::{
    Defect, Execute, FromAgent, Growth, LIMITS, Leftover, LeftoverKind, Ready, Recorded, Report, Setup, Timings,
    ToAgent, WorkloadStep, cut,
};

use crate::{
    channel::Channel,
    checker,
    content::Content,
    coverage::Traces,
    detectors::Detectors,
    disk::{Dirty, Disks, read_all},
    init,
    injector::{Collected, Injector},
    kernel,
    kernel_log::KernelLog,
    oracles::{self, Allocations, HeldDisk, Oracle, Oracles},
    symbols::Symbols,
    workload::{End, Harness, Program, Ran, Worker, fs, keep_memory, nanoseconds_since},
};

/// Serves the host until an error of the agent itself.
pub(crate) fn serve(channel: &mut Channel) -> Result<()> {
    let symbols = Symbols::read()?;
    let hello = kernel::describe(&symbols)?;
    channel.send(&FromAgent::Hello(hello.clone()))?;
    let mut target = None;
    let mut awake = false;
    loop {
        let message = if mem::take(&mut awake) { channel.receive_awake()? } else { channel.receive()? };
        let reply = match (message, &mut target) {
            (ToAgent::Setup(_), Some(_)) => trouble("a target is set up already"),
            (ToAgent::Setup(setup), None) => match Target::prepare(&symbols, &hello.injectable, &setup) {
                Ok((prepared, ready)) => {
                    target = Some(prepared);
                    awake = setup.awake;
                    FromAgent::Ready(ready)
                }
                Err(error) => refused(format!("{error:#}")),
            },
            (ToAgent::Execute(_), None) => trouble("no target is set up"),
            (ToAgent::Execute(execute), Some(target)) => target.execute(&execute)?,
        };
        channel.send(&reply)?;
        if let (Some(target), FromAgent::Report(report)) = (&mut target, &reply)
            && !mem::take(&mut target.leave)
            && report.leftovers.is_empty()
        {
            target.put_disk_back();
        }
    }
}

/// The counters of live allocations. A kernel whose counters cannot be used has none: it says so on
/// its console, and `fuzz doctor` does.
fn allocations_of(symbols: &Symbols) -> Option<Allocations> {
    Allocations::open(symbols).unwrap_or_else(|error| {
        init::say(&format!("no leaks are looked for: {error:#}"));
        None
    })
}

fn refused(reason: String) -> FromAgent {
    FromAgent::Refused(cut(reason, LIMITS.text_bytes))
}

/// Tells the host that the agent failed.
pub(crate) fn trouble(reason: impl Into<String>) -> FromAgent {
    FromAgent::Trouble(cut(reason.into(), LIMITS.text_bytes))
}

/// A target, ready to run.
struct Target<'kernel> {
    symbols: &'kernel Symbols,
    functions: Vec<InjectableFunction>,
    setup_steps: Vec<WorkloadStep>,
    steps: Vec<WorkloadStep>,
    disks: Disks,
    /// Absent only while the workload thread has it.
    harness: Option<Box<Harness>>,
    worker: Worker,
    oracles: Oracles,
    content: Content,
    allocations: Option<Allocations>,
    detectors: Detectors,
    log: KernelLog,
    /// Why no checker reads the disk, although there may be one.
    unchecked: String,
    /// Outcome of putting the disk back after the last report.
    put_back: PutBack,
    /// True when the disk stays as the execution leaves it.
    leave: bool,
}

#[derive(Default)]
struct PutBack {
    took_ns: u64,
    /// Why it was not.
    defect: Option<String>,
}

impl<'kernel> Target<'kernel> {
    /// Prepares everything and runs the workload once, so that what the kernel makes on first use
    /// is there.
    fn prepare(symbols: &'kernel Symbols, injectable: &[InjectableFunction], setup: &Setup) -> Result<(Self, Ready)> {
        fs::make_mount_point()?;
        let program = Program::new(setup)?;
        let disks = Disks::open(&setup.disks)?;
        let (injector, functions, left_out) = Injector::load(symbols, injectable, setup)?;
        let traces = Traces::open()?;
        let [fired_log_address, returns_address] = injector.log_addresses()?;
        let ready = Ready {
            functions: functions.clone(),
            left_out,
            fired_log_address,
            returns_address,
            traces: traces.memory()?,
            unchecked: String::new(),
            text_start: symbols.text_start(),
            text_bytes: symbols.text_end().saturating_sub(symbols.text_start()),
        };
        let mut held = fs::oracles(setup)?;
        held.extend(setup.disks.iter().map(|path| Box::new(HeldDisk::new(path)) as Box<dyn Oracle>));
        let mut target = Self {
            symbols,
            functions,
            setup_steps: setup.setup_steps.clone(),
            steps: setup.steps.clone(),
            disks,
            harness: Some(Box::new(Harness::new(injector, traces, program)?)),
            worker: Worker::start()?,
            oracles: Oracles::new(fs::MOUNT_POINT, held)?,
            content: Content::new(setup),
            allocations: setup.allocations.then(|| allocations_of(symbols)).flatten(),
            detectors: Detectors::note(),
            log: KernelLog::open()?,
            unchecked: String::new(),
            put_back: PutBack::default(),
            leave: false,
        };
        keep_memory()?;
        target.make_images(setup)?;
        target.warm_up()?;
        let unchecked = target.unchecked.clone();
        Ok((target, Ready { unchecked, ..ready }))
    }

    /// Runs the steps that make the disks' images, if there are any.
    fn make_images(&mut self, setup: &Setup) -> Result<()> {
        if setup.image_steps.is_empty() {
            return Ok(());
        }
        self.reset_disk(Reset::Everything).map_err(|reason| anyhow!(reason))?;
        let mut harness = self.harness.take().context("the harness is gone")?;
        let results = harness.program.make_images();
        let copies = harness.program.take_copies();
        self.harness = Some(harness);
        if let Some(defect) = WorkloadStep::defect(&setup.image_steps, &results) {
            bail!("the image cannot be made: {defect}");
        }
        let left: Vec<_> = self.oracles.leftovers().into_iter().map(|leftover| leftover.text).collect();
        if !left.is_empty() {
            bail!("making the image leaves something behind: {}", left.join("; "));
        }
        self.disks.take_images(copies.map_or_else(|| read_all(&setup.disks), Ok)?);
        Ok(())
    }

    fn warm_up(&mut self) -> Result<()> {
        self.reset_disk(Reset::Everything).map_err(|reason| anyhow!(reason))?;
        let harness = self.harness.as_mut().context("the harness is gone")?;
        let plan = FaultPlan::fault_free("warm-up");
        harness.injector.prepare(self.symbols, &plan, self.log.seen_us()).map_err(|reason| anyhow!(reason))?;
        let ran = match self.run(true, Recorded::All)? {
            Ok(ran) => ran,
            Err(stack) => bail!("a step of the workload does not return when nothing fails:\n{stack}"),
        };
        // A clone describes only what the warm-up did not reach: the host, which knows that from
        // other clones, asks when it does not.
        let harness = self.harness.as_mut().context("the harness is gone")?;
        harness.injector.collect(self.symbols, true);
        let mut leftovers: Vec<_> = self.leftovers(ran).into_iter().map(|leftover| leftover.text).collect();
        if leftovers.is_empty() {
            self.try_checker();
        }
        leftovers.extend(self.reset_disk(Reset::Dirty).err());
        let harness = self.harness.as_ref().context("the harness is gone")?;
        if let Some(defect) = WorkloadStep::defect(&self.setup_steps, harness.program.setup_results()) {
            bail!("the set-up does not work: {defect}");
        }
        if let Some(defect) = WorkloadStep::defect(&self.steps, harness.program.results()) {
            bail!("the workload does not work when nothing fails: {defect}");
        }
        if !leftovers.is_empty() {
            bail!("the workload leaves something behind when nothing fails: {}", leftovers.join("; "));
        }
        let off = self.detectors.switched_off();
        if !off.is_empty() {
            bail!("the kernel's log has a report, or a lack of room, when nothing fails: {}", off.join("; "));
        }
        if let Some(difference) = self.difference(None)? {
            bail!("the disk was put back and is not the image: {difference}");
        }
        self.oracles.remember()?;
        self.log.skip()
    }

    /// Has the disk checked when nothing has failed. One that complains then tells nothing later.
    fn try_checker(&mut self) {
        let results = self.harness.as_ref().map_or_else(Vec::new, |harness| harness.program.results().to_vec());
        let seen = self.content.look(&results, &[], false);
        let complaints = |file_system: String| checker::complaints(&file_system, self.content.disk());
        let complaints = seen.unmounted.map_or_else(|| Ok(String::new()), complaints);
        self.unchecked = match complaints {
            Ok(complaints) if complaints.is_empty() => String::new(),
            Ok(complaints) => format!("there are complaints when nothing fails: {complaints}"),
            Err(error) => format!("{error:#}"),
        };
        self.unchecked = cut(mem::take(&mut self.unchecked), LIMITS.text_bytes);
    }

    /// Mounts the disk again, where that is asked for, and compares what it holds. Then its file
    /// system's checker reads it.
    fn look(&self, execute: &Execute, report: &mut Report, timings: &mut Timings) {
        let check = execute.check && self.unchecked.is_empty();
        let looks = execute.look || check;
        if looks && !execute.keep && !execute.leave && report.leftovers.is_empty() {
            let started = Instant::now();
            let seen = self.content.look(&report.steps, &report.fired, execute.look);
            report.losses = seen.losses;
            timings.look_ns = nanoseconds_since(started);
            if let Some(file_system) = seen.unmounted.filter(|_| check) {
                let started = Instant::now();
                report.complaints = checker::complaints(&file_system, self.content.disk()).unwrap_or_else(|error| {
                    init::say(&format!("the disk is not checked: {error:#}"));
                    String::new()
                });
                timings.check_ns = nanoseconds_since(started);
            }
        }
    }

    /// One execution, and what to tell the host of it. An error ends the guest.
    fn execute(&mut self, execute: &Execute) -> Result<FromAgent> {
        if let Err(error) = execute.plan.check().and_then(|()| execute.plan.check_against(&self.functions)) {
            return Ok(refused(error.to_string()));
        }
        let PutBack { took_ns, defect } = mem::take(&mut self.put_back);
        let mut timings = Timings { reset_ns: took_ns, ..Timings::default() };
        let started = Instant::now();
        // Late writes reached the disk after it was put back.
        if !execute.keep
            && let Some(reason) = defect.or_else(|| self.reset_disk(Reset::Late).err())
        {
            return Ok(FromAgent::Unclean(cut(reason, LIMITS.text_bytes)));
        }
        self.leave = execute.leave;
        let defects = execute.verify.map_or_else(|| Ok(Vec::new()), |part| self.defects(part))?;
        let harness = self.harness.as_mut().context("the harness is gone")?;
        // Should the kernel die before the traces begin, there are none.
        harness.traces.clear();
        let log_before = self.log.read()?;
        if !execute.trace.is_empty()
            && let Err(reason) = harness.injector.trace(self.symbols, &execute.trace)
        {
            return Ok(refused(reason));
        }
        if execute.inject
            && let Err(reason) = harness.injector.prepare(self.symbols, &execute.plan, self.log.seen_us())
        {
            return Ok(refused(reason));
        }
        timings.arm_ns = nanoseconds_since(started);

        let ran = match self.run(execute.inject, execute.coverage)? {
            Ok(ran) => ran,
            Err(stack) => return Ok(FromAgent::Hung(cut(stack, LIMITS.text_bytes))),
        };
        (timings.run_ns, timings.settle_ns) = (ran.run_ns, ran.settle_ns);
        let harness = self.harness.as_ref().context("the harness is gone")?;
        // In the state that an earlier round left, it need not work.
        if !execute.keep
            && let Some(defect) = WorkloadStep::defect(&self.setup_steps, harness.program.setup_results())
        {
            return Ok(trouble(format!("the set-up did not work: {defect}")));
        }

        let started = Instant::now();
        let mut report = self.collect(execute)?;
        report.defects = defects;
        report.leftovers = self.leftovers(ran);
        report.growth = self.growth()?;
        self.look(execute, &mut report, &mut timings);
        if timings.look_ns > 0 {
            // That is no plan's doing.
            self.growth()?;
        }
        if execute.search {
            report.unreferenced = cut(oracles::unreferenced()?, LIMITS.log_bytes);
        }
        report.log_before = log_before;
        report.log = self.log.read()?;
        timings.collect_ns = nanoseconds_since(started).saturating_sub(timings.look_ns + timings.check_ns);
        report.timings = timings;
        Ok(FromAgent::Report(Box::new(report)))
    }

    /// Gives the source lines of which more memory is in use than the last time.
    fn growth(&mut self) -> Result<Vec<Growth>> {
        self.allocations.as_mut().map_or_else(|| Ok(Vec::new()), Allocations::growth)
    }

    /// Says in what the guest is no longer as it was at first. Of the disk it looks at this part.
    fn defects(&self, part: u32) -> Result<Vec<Defect>> {
        let disk = self.difference(Some(part))?.map(|what| Defect::Disk(cut(what, LIMITS.text_bytes)));
        Ok(disk.into_iter().chain(self.detectors.switched_off().into_iter().map(Defect::Detector)).collect())
    }

    /// Says how the disk, or a part of it, differs from the image, if it does.
    fn difference(&self, part: Option<u32>) -> Result<Option<String>> {
        self.disks.difference(part)
    }

    /// Puts the disk back for the next execution, while the host looks at the last one's report.
    fn put_disk_back(&mut self) {
        let started = Instant::now();
        let defect = self.reset_disk(Reset::Dirty).err();
        self.put_back = PutBack { took_ns: nanoseconds_since(started), defect };
    }

    /// Runs the steps once in the workload thread, which for ever has the harness if one does not
    /// return: then this gives the functions in which it waits.
    fn run(&mut self, inject: bool, coverage: Recorded) -> Result<Result<Ran, String>> {
        let harness = self.harness.take().context("the harness is gone")?;
        Ok(match self.worker.run(harness, inject, coverage)? {
            End::Ran(harness, ran) => {
                self.harness = Some(harness);
                Ok(ran)
            }
            End::Hung(stack) => Err(stack),
        })
    }

    /// All that the workload left behind.
    fn leftovers(&mut self, ran: Ran) -> Vec<Leftover> {
        let unsettled = ran.unsettled.map(|function| {
            oracles::leftover(LeftoverKind::Work, format!("work does not end: {}", self.symbols.caller(function + 1)))
        });
        unsettled.into_iter().chain(self.oracles.leftovers()).collect()
    }

    /// Makes the disks equal to their images, and by that makes sure that nothing holds them. An
    /// error is what is left to be done, and why it cannot.
    fn reset_disk(&mut self, reset: Reset) -> Result<(), String> {
        let Some(harness) = &mut self.harness else { return Ok(()) };
        if self.disks.is_empty() || reset == Reset::Late && !harness.injector.is_dirty() {
            return Ok(());
        }
        self.disks.reset(|disk| match reset {
            Reset::Everything => Dirty::Everything,
            Reset::Dirty | Reset::Late => harness.injector.dirty_blocks(disk),
        })?;
        harness.injector.clear_dirty();
        Ok(())
    }

    /// Collects what the execution reached.
    fn collect(&mut self, execute: &Execute) -> Result<Report> {
        let harness = self.harness.as_mut().context("the harness is gone")?;
        let mut report = Report { id: execute.id, steps: harness.program.results().to_vec(), ..Report::default() };
        if execute.inject {
            let Collected { hits, new_sites, fired, lost_hits, guarded, unknown_names } =
                harness.injector.collect(self.symbols, execute.describe_all_sites);
            report = Report { hits, new_sites, fired, lost_hits, guarded, unknown_names, ..report };
        }
        Ok(report)
    }
}

/// Part of the disk that is put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reset {
    /// All of it.
    Everything,
    /// Blocks written to since the last time.
    Dirty,
    /// The same blocks; nothing is done when there are none.
    Late,
}
