//! The kernels of a campaign, and what its clients know of each: its matrix and coverage.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use execution::{Execution, Target};
use fault_plan::FaultPlan;
use guest_protocol::TraceRole;
use kcov_parser::CallSites;

use crate::{
    aftermath::Sweeps,
    folder::{CampaignFolder, FolderError},
    matrix::Matrix,
    mutex::locked,
};

/// The part that a client, and the kernel it runs, has in a campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The client searches.
    Explorer,
    /// The client fails the points of another kernel, then runs there the plans that the explorers
    /// came across, and searches when there is none.
    Checker,
}

/// A kernel that plans run on.
#[derive(Clone, Debug)]
pub struct CampaignKernel {
    /// Its name.
    pub name: String,
    /// Its build id.
    pub build_id: String,
    /// The call sites of its coverage function. The coverage map has each of them once for each
    /// role.
    pub call_sites: Arc<CallSites>,
}

impl CampaignKernel {
    /// Counts the points of the coverage map.
    pub(crate) fn map_len(&self) -> usize {
        TraceRole::ALL.len() * self.call_sites.len()
    }

    /// Gives the index in the coverage map of the address `pc` in the code of these tasks.
    pub(crate) fn index_of(&self, role: TraceRole, pc: u64) -> Option<usize> {
        let site = self.call_sites.index_of(pc)? as usize;
        Some(role.index() * self.call_sites.len() + site)
    }
}

/// Numbers of places in the kernel's code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Places {
    /// Those that any task covered.
    pub(crate) all: usize,
    /// Those that the tasks of a role covered, by [`TraceRole::index`].
    pub(crate) by_role: [usize; TraceRole::ALL.len()],
}

/// All that is known of one kernel.
pub(crate) struct KnownKernel {
    pub(crate) kernel: CampaignKernel,
    pub(crate) role: Role,
    /// What was tried in states that executions left.
    pub(crate) sweeps: Sweeps,
    matrix: Mutex<Matrix>,
    coverage: Mutex<Coverage>,
    clock: Clock,
}

/// The time of a campaign's fuzzing, all starts together.
#[derive(Clone, Copy, Debug)]
struct Clock {
    before: Duration,
    start: Instant,
}

impl Clock {
    fn seconds(self) -> u64 {
        (self.before + self.start.elapsed()).as_secs()
    }
}

struct Coverage {
    /// One byte for each point of the coverage map.
    history: Vec<u8>,
    /// The points that the fault-free executions covered.
    fault_free: BTreeSet<usize>,
}

impl KnownKernel {
    /// Restores what the campaign knows of `kernel`.
    fn restore(
        kernels: &Kernels,
        folder: &CampaignFolder,
        kernel: &CampaignKernel,
        role: Role,
    ) -> Result<Self, FolderError> {
        let mut history = vec![0_u8; kernel.map_len()];
        for (role, pc) in folder.read_coverage(&kernel.build_id)? {
            if let Some(index) = kernel.index_of(role, pc) {
                history[index] = 1;
            }
        }
        let (journal, records) = folder.open_matrix(&kernel.name)?;
        let matrix = Mutex::new(Matrix::restore(Arc::clone(&kernels.target), journal, records));
        let coverage = Mutex::new(Coverage { history, fault_free: BTreeSet::new() });
        let (sweeps, clock) = (Sweeps::default(), kernels.clock);
        Ok(Self { kernel: kernel.clone(), role, sweeps, matrix, coverage, clock })
    }

    /// Gives the matrix, locked.
    pub(crate) fn matrix(&self) -> MutexGuard<'_, Matrix> {
        locked(&self.matrix)
    }

    /// Takes in the points that `execution` of `plan` reached and the faults that fired. Returns
    /// whether a point is new.
    pub(crate) fn learn(&self, plan: &FaultPlan, execution: &Execution) -> bool {
        let (mut matrix, now) = (self.matrix(), self.clock.seconds());
        let new = matrix.learn(plan, execution, now);
        matrix.fired(plan, execution, now);
        new
    }

    /// Gives the coverage so far, that of earlier starts included: one byte for each point.
    pub(crate) fn history(&self) -> Vec<u8> {
        locked(&self.coverage).history.clone()
    }

    /// Takes in the coverage of a client.
    pub(crate) fn cover(&self, history: &[u8]) {
        for (seen, now) in locked(&self.coverage).history.iter_mut().zip(history) {
            *seen |= *now;
        }
    }

    /// Takes in what a fault-free execution covered. Returns how many points none before had.
    pub(crate) fn note_fault_free(&self, execution: &Execution) -> usize {
        let points = execution.covered().filter_map(|(role, pc)| self.kernel.index_of(role, pc));
        let mut coverage = locked(&self.coverage);
        points.filter(|point| coverage.fault_free.insert(*point)).count()
    }

    /// Leaves those of `points` that no fault-free execution covered.
    pub(crate) fn keep_beyond_fault_free(&self, points: &mut Vec<usize>) {
        let coverage = locked(&self.coverage);
        points.retain(|point| !coverage.fault_free.contains(point));
    }

    /// Counts the places that were covered.
    pub(crate) fn covered(&self) -> Places {
        let points = self.kernel.call_sites.len();
        let coverage = locked(&self.coverage);
        let mut by_role = coverage.history.chunks_exact(points.max(1));
        let by_role = std::array::from_fn(|_| by_role.next().unwrap_or_default());
        let is_covered = |place: &usize| by_role.iter().any(|seen| seen.get(*place).is_some_and(|seen| *seen != 0));
        let count = |seen: &[u8]| seen.iter().filter(|seen| **seen != 0).count();
        Places { all: (0..points).filter(is_covered).count(), by_role: by_role.map(count) }
    }

    /// Counts the places that the fault-free executions covered.
    pub(crate) fn covered_fault_free(&self) -> usize {
        self.fault_free_places().len()
    }

    /// Gives the places that the fault-free executions covered, in whatever task.
    fn fault_free_places(&self) -> BTreeSet<usize> {
        let points = self.kernel.call_sites.len().max(1);
        locked(&self.coverage).fault_free.iter().map(|index| index % points).collect()
    }

    /// Writes matrix and coverage.
    fn write(&self, folder: &CampaignFolder) -> Result<(), FolderError> {
        self.matrix().rewrite()?;
        let history = self.history();
        let points =
            TraceRole::ALL.into_iter().flat_map(|role| self.kernel.call_sites.iter().map(move |pc| (role, pc)));
        let covered = points.zip(&history).filter(|(_, seen)| **seen != 0);
        folder.write_coverage(&self.kernel.build_id, covered.map(|(point, _)| point))?;
        let fault_free = self.fault_free_places();
        // Nothing ran yet: an earlier start may have known it.
        if fault_free.is_empty() {
            return Ok(());
        }
        let covered = self.kernel.call_sites.iter().zip(0..).filter(|(_, place)| fault_free.contains(place));
        folder.write_fault_free(&self.kernel.build_id, covered.map(|(pc, _)| pc))
    }
}

/// The kernels that clients of this start run.
pub(crate) struct Kernels {
    target: Arc<Target>,
    clock: Clock,
    /// By build id.
    known: Mutex<BTreeMap<String, Arc<KnownKernel>>>,
}

impl Kernels {
    /// Makes the kernels of a campaign on `target` whose earlier starts have fuzzed for the time
    /// `before`.
    pub(crate) fn new(target: Arc<Target>, before: Duration) -> Self {
        Self { target, clock: Clock { before, start: Instant::now() }, known: Mutex::default() }
    }

    /// Gives what is known of `kernel`, restored from `folder` for the first client that runs it.
    ///
    /// # Errors
    ///
    /// A file of an earlier start is damaged.
    pub(crate) fn get(
        &self,
        folder: &CampaignFolder,
        kernel: &CampaignKernel,
        role: Role,
    ) -> Result<Arc<KnownKernel>, FolderError> {
        let mut known = locked(&self.known);
        if let Some(known) = known.get(&kernel.build_id) {
            return Ok(Arc::clone(known));
        }
        let restored = Arc::new(KnownKernel::restore(self, folder, kernel, role)?);
        known.insert(kernel.build_id.clone(), Arc::clone(&restored));
        Ok(restored)
    }

    /// Gives the kernel of those who have this `role`, once one of them has started.
    pub(crate) fn of(&self, role: Role) -> Option<Arc<KnownKernel>> {
        locked(&self.known).values().find(|known| known.role == role).cloned()
    }

    /// Gives the build id of the kernel called `name`, or else that of any other one.
    pub(crate) fn build_id(&self, name: &str) -> Option<String> {
        let known = locked(&self.known);
        let named = known.values().find(|known| known.kernel.name == name);
        named.or_else(|| known.values().next()).map(|known| known.kernel.build_id.clone())
    }

    /// Writes matrix and coverage of all of them.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub(crate) fn write(&self, folder: &CampaignFolder) -> Result<(), FolderError> {
        // Held meanwhile: of two that write the same file the later one must know more.
        locked(&self.known).values().try_for_each(|known| known.write(folder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake;

    #[test]
    fn a_place_counts_once_whoever_covered_it_and_is_restored_for_each() {
        let folder = tempfile::tempdir().unwrap();
        let (folder, kernel) = (fake::open(folder.path()), fake::kernel("fake"));
        let kernels = fake::kernels();
        let known = kernels.get(&folder, &kernel, Role::Explorer).unwrap();
        let pcs = |places: &[u64]| places.iter().map(|place| fake::TEXT_START + place).collect::<Vec<_>>();
        let mut execution = fake::quiet();
        execution.coverage =
            vec![fake::covered(TraceRole::Workload, &pcs(&[1, 2])), fake::covered(TraceRole::Threads, &pcs(&[2, 3]))];
        assert_eq!((known.note_fault_free(&execution), known.note_fault_free(&execution)), (4, 0));
        assert_eq!(known.covered_fault_free(), 3);
        let mut history = vec![0; kernel.map_len()];
        for (role, pc) in execution.covered() {
            history[kernel.index_of(role, pc).unwrap()] = 1;
        }
        known.cover(&history);
        let places = Places { all: 3, by_role: [2, 0, 2] };
        assert_eq!(known.covered(), places);
        kernels.write(&folder).unwrap();
        let fault_free = CampaignFolder::fault_free_in(folder.path(), &kernel.build_id).unwrap();
        assert_eq!(fault_free, Some(pcs(&[1, 2, 3]).into_iter().collect()));
        assert_eq!(CampaignFolder::fault_free_in(folder.path(), "other").unwrap(), None);
        let restored = fake::kernels().get(&folder, &kernel, Role::Explorer).unwrap();
        assert_eq!((restored.covered(), restored.history()), (places, history));
        assert_eq!(kernel.index_of(TraceRole::Tasks, 0), None, "no place of this kernel");
    }
}
