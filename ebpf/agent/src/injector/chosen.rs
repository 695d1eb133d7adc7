//! The functions to probe: those that are asked for and that this kernel can make fail.
//!
//! ```text
//! contract ─┬─ on the kernel's list ───────────────────────────────────────────▶ probed
//!           ├─ not on it, without a type ──────────────────────────────────────▶ refused
//!           └─ not on it, with a type ─┬─ found, and traceable ─▶ a slot of it ─▶ probed
//!                                      └─ inlined, … ───────────────────────────▶ left out, and why
//! ```
//!
//! Kernels inline differently. So a function off the list that one of them lacks is left out there,
//! and only a target of which nothing is left is refused.

use std::{collections::HashSet, fs};

use anyhow::{Context, Result, bail};
use fault_plan::{Condition, ErrorType, InjectableFunction};
use guest_protocol::{Contract, LIMITS, LeftOut, cut};

use super::{guards, slots::Slots, types::Types};
use crate::{kernel::trace_file, symbols::Symbols};

/// The kernel's list of functions whose calls can be traced, in the folder of tracefs.
const TRACEABLE: &str = "available_filter_functions";

/// A function to probe.
pub(super) struct Probed {
    pub(super) function: InjectableFunction,
    /// Addresses at which it begins: more than one where the compiler has cloned it.
    pub(super) entries: Vec<u64>,
    /// Which of its calls the kernel would never fail.
    pub(super) guards: abi::Function,
    /// True when it is not on the kernel's list by itself.
    off_list: bool,
}

/// The functions to probe, and those that are not.
#[derive(Default)]
pub(super) struct Chosen {
    pub(super) probed: Vec<Probed>,
    pub(super) left_out: Vec<LeftOut>,
}

impl Chosen {
    /// Chooses among `contracts` those whose functions this kernel can make fail, and adds them to
    /// the list of those, which has `listed` before. Says of the others why not.
    ///
    /// # Errors
    ///
    /// A function without a type is not on the list, one is there twice, none is left, or the
    /// kernel does not take what is added.
    pub(super) fn of(
        symbols: &Symbols,
        listed: &[InjectableFunction],
        contracts: &[Contract],
        types: &mut Types,
    ) -> Result<Self> {
        let mut chosen = Self::default();
        for (index, contract) in contracts.iter().enumerate() {
            let name = &contract.function;
            if contracts[..index].iter().any(|earlier| earlier.function == *name) {
                bail!("\"{name}\" is to be probed twice");
            }
            let known = listed.iter().find(|function| function.name == *name).map(|function| function.error_type);
            let guards = guards::lower(contract, symbols, types);
            match probed(symbols, contract, known, guards)? {
                Ok(probed) => chosen.probed.push(probed),
                Err(reason) => chosen.leave_out(name.clone(), reason),
            }
        }
        chosen.leave_out_untraceable(symbols)?;
        chosen.list()?;
        if chosen.probed.is_empty() && !contracts.is_empty() {
            let reason = |LeftOut { function, reason }: &LeftOut| format!("{function}: {reason}");
            let reasons: Vec<_> = chosen.left_out.iter().map(reason).collect();
            bail!("no function of the target can be made to fail on this kernel: {}", reasons.join("; "));
        }
        Ok(chosen)
    }

    fn leave_out(&mut self, function: String, reason: String) {
        self.left_out.push(LeftOut { function, reason: cut(reason, LIMITS.text_bytes) });
    }

    /// Leaves out the functions off the list of which `is_out` holds.
    fn leave_out_where(&mut self, is_out: impl Fn(&Probed) -> bool, reason: &str) {
        let (out, kept) =
            std::mem::take(&mut self.probed).into_iter().partition(|probed| probed.off_list && is_out(probed));
        self.probed = kept;
        let out: Vec<Probed> = out;
        out.into_iter().for_each(|probed| self.leave_out(probed.function.name, reason.to_owned()));
    }

    /// Leaves out the functions off the list whose calls the kernel cannot trace.
    fn leave_out_untraceable(&mut self, symbols: &Symbols) -> Result<()> {
        let off_list = self.probed.iter().filter(|probed| probed.off_list);
        let entries: HashSet<u64> = off_list.flat_map(|probed| probed.entries.iter().copied()).collect();
        if entries.is_empty() {
            return Ok(());
        }
        let Some(path) = trace_file(TRACEABLE) else {
            self.leave_out_where(
                |_| true,
                "this kernel does not tell which calls can be traced (CONFIG_DYNAMIC_FTRACE)",
            );
            return Ok(());
        };
        let list = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let names = symbols.names_at(&entries);
        // A line is a name, with the module's behind it for a function of one.
        let traceable: HashSet<u64> = list.lines().filter_map(|line| names.get(line).copied()).collect();
        let is_out = |probed: &Probed| !probed.entries.iter().all(|entry| traceable.contains(entry));
        self.leave_out_where(is_out, "its calls cannot be traced (available_filter_functions)");
        Ok(())
    }

    /// Puts the functions off the list on it.
    fn list(&mut self) -> Result<()> {
        let off_list = self.probed.iter().filter(|probed| probed.off_list);
        let of_one = |probed: &Probed| {
            let error_type = probed.function.error_type;
            probed.entries.clone().into_iter().map(move |entry| (entry, error_type))
        };
        let entries: Vec<(u64, ErrorType)> = off_list.flat_map(of_one).collect();
        if entries.is_empty() {
            return Ok(());
        }
        match Slots::find()? {
            Ok(slots) => slots.load(&entries).context("cannot add to the kernel's list of functions that may fail"),
            Err(reason) => {
                self.leave_out_where(|_| true, reason);
                Ok(())
            }
        }
    }
}

/// The function of `contract`, which the kernel lists as `known` and with these `guards`; or why it
/// cannot be probed.
fn probed(
    symbols: &Symbols,
    contract: &Contract,
    known: Option<ErrorType>,
    guards: Result<abi::Function>,
) -> Result<Result<Probed, String>> {
    let name = &contract.function;
    let Some(error_type) = contract.error_type.or(known) else {
        bail!("\"{name}\" is not on the kernel's list of functions that may fail (error_injection/list)");
    };
    let guards = match guards {
        Err(error) if contract.error_type.is_none() => {
            return Err(error).with_context(|| format!("cannot probe \"{name}\""));
        }
        Err(error) => return Ok(Err(error.root_cause().to_string())),
        Ok(guards) => guards,
    };
    let entries = match known {
        Some(known) if known != error_type => Err(format!("this kernel lists it with the type {known}")),
        Some(_) => {
            let entry = symbols.address(name);
            Ok(vec![entry.with_context(|| format!("cannot probe \"{name}\": the kernel has no such symbol"))?])
        }
        None => entries(symbols, contract).map_err(str::to_owned),
    };
    let function = InjectableFunction { name: name.clone(), error_type };
    Ok(entries.map(|entries| Probed { function, entries, guards, off_list: known.is_none() }))
}

/// The addresses at which the function of `contract`, which is not on the kernel's list, begins; or
/// why it cannot be probed.
fn entries(symbols: &Symbols, contract: &Contract) -> Result<Vec<u64>, &'static str> {
    let name = &contract.function;
    let clones = symbols.clones(name);
    if clones.is_empty() {
        let is_part = symbols.has_parts(name);
        return Err(if is_part {
            "only parts of it are functions (.part, .cold), as it was inlined"
        } else {
            "inlined wherever it is called, or not in this kernel"
        });
    }
    if clones.windows(2).any(|two| two[0].0 == two[1].0) {
        return Err("several functions of this kernel have that name");
    }
    let is_original = clones.iter().all(|(clone, _)| clone == name);
    if !is_original && contract.never.iter().any(|condition| matches!(condition, Condition::Argument(_))) {
        return Err("the compiler has changed its arguments (.isra, .constprop), and its contract speaks of them");
    }
    Ok(clones.into_iter().map(|(_, address)| address).collect())
}

#[cfg(test)]
impl Probed {
    pub(super) fn of(name: &str, entries: Vec<u64>) -> Self {
        let function = InjectableFunction { name: name.to_owned(), error_type: ErrorType::Errno };
        Self { function, entries, guards: abi::Function::default(), off_list: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "ffffffff81000000 T _stext\n\
        ffffffff81000010 T listed\n\
        ffffffff81000030 t plain\n\
        ffffffff81000050 t cloned.isra.0\n\
        ffffffff81000070 t cloned.constprop.0.isra.1\n\
        ffffffff81000090 t cloned.cold\n\
        ffffffff810000a0 t parts.part.0\n\
        ffffffff810000c0 t parts.cold\n\
        ffffffff810000d0 t twice\n\
        ffffffff810000e0 t twice\n\
        ffffffff810000f0 T _etext\n\
        ffffffff82000000 t at_boot\n";

    fn contract(function: &str, error_type: Option<ErrorType>, never: &[&str]) -> Contract {
        let never = never.iter().map(|text| toml::from_str(text).unwrap()).collect();
        Contract { function: function.to_owned(), error_type, never, shown: Vec::new() }
    }

    /// What is probed, or why not; an error is a refusal of everything.
    fn choose(contract: &Contract, known: Option<ErrorType>) -> Result<Result<Vec<u64>, String>, String> {
        let symbols = Symbols::parse(LIST.to_owned()).unwrap();
        let guards = guards::lower(contract, &symbols, &mut Types::default());
        let probed = probed(&symbols, contract, known, guards).map_err(|error| format!("{error:#}"))?;
        Ok(probed.map(|probed| {
            assert_eq!(probed.off_list, known.is_none());
            probed.entries.iter().map(|entry| entry & 0xff).collect()
        }))
    }

    #[test]
    fn a_function_with_a_type_is_found_with_its_clones_or_left_out() {
        let errno = Some(ErrorType::Errno);
        let found = |name: &str| choose(&contract(name, errno, &[]), None).unwrap();
        assert_eq!(found("plain"), Ok(vec![0x30]));
        assert_eq!(found("cloned"), Ok(vec![0x70, 0x50]));
        assert_eq!(found("clone").unwrap_err(), "inlined wherever it is called, or not in this kernel");
        assert!(found("parts").unwrap_err().starts_with("only parts of it are functions"));
        assert!(found("twice").unwrap_err().starts_with("several functions"));
        assert!(found("at_boot").unwrap_err().starts_with("inlined"), "it is no text of the running kernel");
        let argument = contract("cloned", errno, &["argument = 1\nvalue = 0"]);
        assert!(choose(&argument, None).unwrap().unwrap_err().starts_with("the compiler has changed its arguments"));
        let below = contract("plain", errno, &["caller = 'gone'"]);
        assert!(choose(&below, None).unwrap().unwrap_err().contains("no function \"gone\""));
    }

    #[test]
    fn the_kernels_list_has_the_last_word() {
        let (errno, null) = (Some(ErrorType::Errno), Some(ErrorType::Null));
        for error_type in [None, errno] {
            assert_eq!(choose(&contract("listed", error_type, &[]), errno).unwrap(), Ok(vec![0x10]));
        }
        let other = choose(&contract("listed", null, &[]), errno).unwrap().unwrap_err();
        assert_eq!(other, "this kernel lists it with the type ERRNO");
        let refused = choose(&contract("plain", None, &[]), None).unwrap_err();
        assert!(refused.contains("\"plain\" is not on the kernel's list"), "{refused}");
        let below = choose(&contract("listed", None, &["caller = 'gone'"]), errno).unwrap_err();
        assert!(below.starts_with("cannot probe \"listed\": ") && below.contains("\"gone\""), "{below}");
    }

    #[test]
    fn functions_are_chosen_once_and_a_target_without_any_is_refused() {
        let symbols = Symbols::parse(LIST.to_owned()).unwrap();
        let listed = [InjectableFunction { name: "listed".to_owned(), error_type: ErrorType::Errno }];
        let chosen = |contracts: &[Contract]| {
            Chosen::of(&symbols, &listed, contracts, &mut Types::default()).map_err(|error| format!("{error:#}"))
        };
        let plain = contract("listed", None, &[]);
        let gone = contract("gone", Some(ErrorType::Null), &[]);
        let both = chosen(&[plain.clone(), gone.clone()]).unwrap();
        assert_eq!((both.probed.len(), both.left_out[0].function.as_str()), (1, "gone"));
        assert!(chosen(&[plain.clone(), plain]).err().unwrap().contains("twice"));
        let refused = chosen(&[gone]).err().unwrap();
        assert!(
            refused.ends_with("on this kernel: gone: inlined wherever it is called, or not in this kernel"),
            "{refused}"
        );
        assert!(chosen(&[]).unwrap().probed.is_empty());
    }
}
