//! Guards: which calls of a probed function the kernel would never fail, lowered to what the BPF
//! program compares.

use abi::{Function, Part};
use anyhow::{Context, Result, bail};
use fault_plan::{ArgumentCondition, CallerCondition, Condition, Operand, Operator};
use guest_protocol::Contract;

use super::{parts, types::Types};
use crate::symbols::Symbols;

const _: () = assert!(abi::MAX_CONDITIONS == guest_protocol::MAX_CONDITIONS);
const _: () = assert!(abi::MAX_CALLERS == guest_protocol::MAX_CALLERS);

/// The guards of the function of `contract`.
///
/// # Errors
///
/// This kernel lacks something that a guard speaks of: without its guards a function must not be
/// probed.
pub(super) fn lower(contract: &Contract, symbols: &Symbols, types: &mut Types) -> Result<Function> {
    let mut function = Function::default();
    let Contract { function: name, never, .. } = contract;
    let mut conditions = 0;
    for condition in never {
        let added = match condition {
            Condition::Argument(condition) => lower_argument(condition, symbols, types).and_then(|condition| {
                let free = function.never.get_mut(conditions);
                *free.with_context(|| format!("it has more than {} conditions", abi::MAX_CONDITIONS))? = condition;
                conditions += 1;
                Ok(())
            }),
            Condition::Caller(callers) => lower_callers(&mut function, callers, symbols),
        };
        added.with_context(|| format!("cannot tell which calls of \"{name}\" never fail"))?;
    }
    Ok(function)
}

/// Adds `callers` to those below which `function` never fails. Where one of several is enough, a
/// kernel has those that its compiler made functions of their own. A kernel without any of optional
/// ones has no such calls.
fn lower_callers(function: &mut Function, callers: &CallerCondition, symbols: &Symbols) -> Result<()> {
    let CallerCondition { names, optional } = callers;
    let known: Vec<_> = names.iter().filter_map(|caller| symbols.name_id(caller)).collect();
    if known.is_empty() && !optional {
        let names = names.join("\" or \"");
        bail!(
            "this kernel has no function \"{names}\": name the one that it is inlined into, or leave the function out"
        );
    }
    if !known.into_iter().all(|caller| function.never_below(caller)) {
        bail!("it has more than {} callers below which it never fails", abi::MAX_CALLERS);
    }
    Ok(())
}

/// The condition as the BPF program compares it.
///
/// # Errors
///
/// This kernel lacks something that it speaks of.
pub(super) fn lower_argument(
    condition: &ArgumentCondition,
    symbols: &Symbols,
    types: &mut Types,
) -> Result<abi::Condition> {
    let mask = number(&condition.mask, types)?;
    let whole = parts::lower(condition.argument, condition.field.as_deref(), types)?;
    let part = Part { mask: whole.mask & mask, ..whole };
    if let Operand::Symbol { symbol } = &condition.value {
        let address = symbols.address(symbol).filter(|address| *address != 0).with_context(|| {
            format!("the kernel, built without CONFIG_KALLSYMS_ALL, tells no address of \"{symbol}\"")
        })?;
        return Ok(abi::Condition::equals_variable(part, address));
    }
    let value = number(&condition.value, types)?;
    let Some((low, span)) = interval(condition.operator, value) else {
        bail!("no number is less than 0 or greater than {value}");
    };
    Ok(abi::Condition { part, low, span })
}

/// The least number that compares like this with `value`, and how many more do, without a gap but
/// for the step from the largest to 0.
fn interval(operator: Operator, value: u64) -> Option<(u64, u64)> {
    Some(match operator {
        Operator::Equal => (value, 0),
        Operator::NotEqual => (value.wrapping_add(1), u64::MAX - 1),
        Operator::Less => (0, value.checked_sub(1)?),
        Operator::AtMost => (0, value),
        Operator::Greater => (value.checked_add(1)?, u64::MAX - value - 1),
        Operator::AtLeast => (value, u64::MAX - value),
    })
}

/// The number that `operand` is.
fn number(operand: &Operand, types: &mut Types) -> Result<u64> {
    let mut constant = |name: &str, or: Option<u64>| {
        types.constant(name)?.or(or).with_context(|| {
            format!(
                "the kernel's types (CONFIG_DEBUG_INFO_BTF) have no constant \"{name}\", and no \"or\" says its number"
            )
        })
    };
    match operand {
        Operand::Number(number) => Ok(*number),
        Operand::Constant { constant: name, or } => constant(name, *or),
        Operand::Bit { bit, or } => {
            let number = constant(bit, or.map(u64::from))?;
            let shift = u32::try_from(number).ok().and_then(|shift| 1_u64.checked_shl(shift));
            shift.with_context(|| format!("\"{bit}\" is {number}, which is no bit of 64"))
        }
        Operand::Symbol { symbol } => bail!("what the symbol \"{symbol}\" has is no mask"),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::types::Field, *};

    const LIST: &str = "ffffffff81000000 T _stext\nffffffff81000010 T f\nffffffff81000050 T _etext\n\
        ffffffff84000000 B kmem_cache\n";

    fn lowered(conditions: &[&str], list: &str) -> Result<Function, String> {
        let never = conditions.iter().map(|text| toml::from_str(text).unwrap()).collect();
        let contract = Contract { function: "f".to_owned(), error_type: None, never, shown: Vec::new() };
        let absent = ["A", "OTHER_BIT"].map(|name| (name, None));
        let constants = [&absent[..], &[("GFP_BIT", Some(3))]].concat();
        let mut types = Types::of(&constants, &[("s.f", Field { offset: 12, bytes: 2 })]);
        let symbols = Symbols::parse(list.to_owned()).unwrap();
        lower(&contract, &symbols, &mut types).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn names_become_numbers_of_the_running_kernel() {
        let flag = "argument = 2\nmask = { bit = 'GFP_BIT', or = 15 }\noperator = '!='\nvalue = 0";
        let older = "argument = 4\nmask = { bit = 'OTHER_BIT', or = 15 }\noperator = '!='\nvalue = 0";
        let cache = "argument = 1\nvalue = { symbol = 'kmem_cache' }";
        let [flag, older, cache, none] = lowered(&[flag, older, cache], LIST).unwrap().never;
        let part = Part { mask: 8, ..Part::argument(104) };
        assert_eq!(flag, abi::Condition { part, low: 1, span: u64::MAX - 1 });
        assert_eq!((older.part.argument, older.part.mask), (88, 1 << 15));
        assert_eq!((cache.part.argument, cache.is_pending(), cache.low), (112, true, 0xffff_ffff_8400_0000));
        assert!(cache.holds(0) && cache.holds(u64::MAX), "what is yet to be read is looked at at every call");
        assert_eq!(none, abi::Condition::NONE);
    }

    #[test]
    fn a_field_is_its_place_and_its_bits() {
        let [field, ..] = lowered(&["argument = 1\nfield = 's.f'\noperator = '>='\nvalue = 7"], LIST).unwrap().never;
        assert_eq!(field.part, Part { field: 1, offset: 12, mask: 0xffff, ..Part::argument(112) });
        assert!(field.holds(7) && !field.holds(6));
    }

    #[test]
    fn callers_become_names_of_the_running_kernel() {
        let caller = |names: &str| format!("caller = {names}");
        let list = LIST.replace("f\n", "f\nffffffff81000020 t write_one.isra.0\nffffffff81000030 t submit\n");
        let symbols = Symbols::parse(list.clone()).unwrap();
        let id = |name: &str| symbols.name_id(name).unwrap();
        let lowered = |names: &[&str]| {
            let texts: Vec<_> = names.iter().map(|names| caller(names)).collect();
            lowered(&texts.iter().map(String::as_str).collect::<Vec<_>>(), &list)
        };
        let function = lowered(&["['write_one', 'gone']", "'submit'"]).unwrap();
        assert_eq!(function.never_below[..3], [id("write_one"), id("submit"), abi::NO_NAME]);
        assert_eq!(function.never, [abi::Condition::NONE; abi::MAX_CONDITIONS]);
        let without = lowered(&["['gone', 'lost']\noptional = true", "'submit'"]).unwrap();
        assert_eq!(without.never_below[..2], [id("submit"), abi::NO_NAME]);
        let refusal = lowered(&["['gone', 'lost']"]).unwrap_err();
        assert!(
            refusal.contains("calls of \"f\" never fail: ") && refusal.contains("\"gone\" or \"lost\""),
            "{refusal}"
        );
    }

    #[test]
    fn what_this_kernel_cannot_tell_is_named() {
        let refusal = |text, list| lowered(&[text], list).unwrap_err();
        let hidden = LIST.replace("kmem_cache", "other");
        let cache = refusal("argument = 1\nvalue = { symbol = 'kmem_cache' }", &hidden);
        assert!(cache.contains("calls of \"f\" never fail: ") && cache.contains("CONFIG_KALLSYMS_ALL"), "{cache}");
        assert!(refusal("argument = 1\nvalue = { constant = 'A' }", LIST).contains("no constant \"A\""));
        assert!(refusal("argument = 1\nmask = { bit = 'A', or = 64 }\nvalue = 0", LIST).contains("no bit of 64"));
        let field = refusal("argument = 1\nfield = 's.gone'\nvalue = 0", LIST);
        assert!(field.contains("\"s\"") || field.contains("\"s.gone\""), "{field}");
        assert!(refusal("argument = 1\noperator = '<'\nvalue = 0", LIST).contains("no number is less than 0"));
        assert!(lowered(&["argument = 1\nvalue = 1"; 5], LIST).unwrap_err().contains("more than 4 conditions"));
    }

    #[test]
    fn every_comparison_is_an_interval() {
        type Compare = fn(&u64, &u64) -> bool;
        let operators: [(Operator, Compare); 6] = [
            (Operator::Equal, u64::eq),
            (Operator::NotEqual, u64::ne),
            (Operator::Less, u64::lt),
            (Operator::AtMost, u64::le),
            (Operator::Greater, u64::gt),
            (Operator::AtLeast, u64::ge),
        ];
        let numbers = [0, 1, 2, 7, u64::MAX / 2, u64::MAX - 1, u64::MAX];
        for (operator, compare) in operators {
            for value in numbers {
                let interval = interval(operator, value);
                for number in numbers {
                    let holds = interval
                        .is_some_and(|(low, span)| abi::Condition { low, span, ..abi::Condition::NONE }.holds(number));
                    assert_eq!(holds, compare(&number, &value), "{number} {operator:?} {value}");
                }
            }
        }
    }
}
