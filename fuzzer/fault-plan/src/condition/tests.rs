//! Conditions as files have them.

use super::*;

fn read(text: &str) -> Result<Condition, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

#[test]
fn a_condition_is_what_its_keys_say() {
    let flag = r#"{"argument":2,"mask":{"bit":"___GFP_NOFAIL_BIT","or":15},"operator":"!=","value":0}"#;
    let condition = read(flag).unwrap();
    let mask = Operand::Bit { bit: "___GFP_NOFAIL_BIT".to_owned(), or: Some(15) };
    let (operator, value) = (Operator::NotEqual, Operand::Number(0));
    let expected = ArgumentCondition { argument: 2, field: None, mask, operator, value };
    assert_eq!(condition, Condition::Argument(expected));
    let cache = r#"{"argument":1,"value":{"symbol":"kmem_cache"}}"#;
    let Condition::Argument(of_cache) = read(cache).unwrap() else { panic!("it is one on an argument") };
    assert_eq!((of_cache.mask, of_cache.operator), (Operand::Number(u64::MAX), Operator::Equal));
    let (one, two) = (r#"{"caller":"f"}"#, r#"{"caller":["f","g"]}"#);
    let maybe = r#"{"caller":"f","optional":true}"#;
    let callers = |names: &[&str], optional| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Condition::Caller(CallerCondition { names, optional })
    };
    assert_eq!(read(one).unwrap(), callers(&["f"], false));
    assert_eq!(read(two).unwrap(), callers(&["f", "g"], false));
    assert_eq!(read(maybe).unwrap(), callers(&["f"], true));
    let sector = r#"{"argument":1,"field":"bio.bi_iter.bi_sector","value":8}"#;
    for text in [flag, cache, one, two, maybe, sector] {
        let condition = read(text).unwrap();
        assert_eq!(serde_json::to_string(&condition).unwrap(), text);
        let packed = postcard::to_stdvec(&condition).unwrap();
        assert_eq!(postcard::from_bytes::<Condition>(&packed).unwrap(), condition);
    }
    assert!(read(r#"{"argument":1,"value":{"constant":"A"}}"#).is_ok());
}

#[test]
fn what_cannot_be_compared_is_refused() {
    for (text, reason) in [
        (r#"{"argument":0,"value":1}"#, "there is no argument 0, possible are 1 to 6"),
        (r#"{"argument":7,"value":1}"#, "no argument 7"),
        (r#"{"argument":1,"mask":{"symbol":"a"},"value":1}"#, "a mask is a number"),
        (r#"{"argument":1,"operator":"<","value":{"symbol":"a"}}"#, "\"a\" has can only be compared by \"==\""),
        (r#"{"argument":1,"field":"bio","value":1}"#, "\"bio\" is no field: write STRUCTURE.MEMBER"),
        (r#"{"argument":1,"field":"bio..a","value":1}"#, "\"bio..a\" is no field"),
        (r#"{"field":"bio.a","caller":"f"}"#, "and not both"),
        (r#"{"argument":1,"operator":"=","value":1}"#, "unknown variant `=`"),
        (r#"{"argument":1,"value":{"bit":"A","and":1}}"#, "an operand is a number, { bit"),
        (r#"{"argument":1,"value":1,"values":1}"#, "unknown field `values`"),
        (r#"{"argument":1}"#, "{ argument = NUMBER, value = … } or { caller = NAME }"),
        (r#"{"argument":1,"value":1,"caller":"f"}"#, "and not both"),
        (r#"{"argument":1,"value":1,"optional":true}"#, "only a caller is optional"),
        (r#"{"caller":[]}"#, "at least one"),
        (r#"{"caller":["f",""]}"#, "\"\" is no function's name"),
        (r#"{"caller":"..."}"#, "\"...\" is no function's name"),
        (r#"{"caller":1}"#, "a caller is the name of a function, or a list"),
    ] {
        let refusal = read(text).unwrap_err();
        assert!(refusal.contains(reason), "{text}: {refusal}");
    }
}
