//! The way of an error in one sentence.

use crate::model::Caller;

/// Says where an error went that the innermost of `path` was given, as far as a traced run told;
/// nothing where it told nothing.
pub(crate) fn way(path: &[Caller]) -> Option<String> {
    let passes = |caller: &Caller| caller.mark.is_none() && caller.returned.as_deref().is_some_and(is_error);
    let (carried, rest) = path.split_at(path.iter().position(|caller| !passes(caller)).unwrap_or(path.len()));
    let mut sentence = match carried {
        [] => None,
        [one] => Some(format!("The error is returned by {}()", one.name())),
        [first, .., last] => Some(format!("The error is returned by {}() up to {}()", first.name(), last.name())),
    };
    let end = rest.first().and_then(|caller| {
        let (name, returned) = (caller.name(), caller.returned.as_deref()?);
        match caller.mark.as_deref() {
            Some("swallowed") => Some(format!("{name}() returns {returned}, as if nothing had happened")),
            Some("changed") => Some(format!("{name}() returns {returned} in its place")),
            None if returned == "did not return" && sentence.is_some() => Some(format!("{name}() does not return")),
            _ => None,
        }
    });
    if let Some(end) = end {
        sentence =
            Some(sentence.map_or_else(|| format!("The error stays there: {end}"), |text| format!("{text}; {end}")));
    }
    sentence.map(|text| text + ".")
}

/// Says whether a function that returned this has failed for certain.
fn is_error(returned: &str) -> bool {
    returned == "NULL" || returned.starts_with("-E")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(path: &[(&str, Option<&str>, Option<&str>)]) -> Option<String> {
        let caller = |(function, returned, mark): &(&str, Option<&str>, Option<&str>)| Caller {
            function: (*function).to_owned(),
            lines: Vec::new(),
            returned: returned.map(str::to_owned),
            mark: mark.map(str::to_owned),
        };
        way(&path.iter().map(caller).collect::<Vec<_>>())
    }

    #[test]
    fn an_error_goes_as_far_as_the_data_says() {
        let (null, failed) = (Some("NULL"), Some("-ENOMEM"));
        let swallowed =
            [("a+0x1", null, None), ("b", failed, None), ("c", Some("0"), Some("swallowed")), ("d", None, None)];
        assert_eq!(
            told(&swallowed).unwrap(),
            "The error is returned by a() up to b(); c() returns 0, as if nothing had happened."
        );
        assert_eq!(told(&swallowed[2..]).unwrap(), "The error stays there: c() returns 0, as if nothing had happened.");
        assert_eq!(
            told(&[("a", null, None), ("b", Some("did not return"), None)]).unwrap(),
            "The error is returned by a(); b() does not return."
        );
        assert_eq!(
            told(&[("a", failed, None), ("b", failed, None), ("c", Some("?"), None)]).unwrap(),
            "The error is returned by a() up to b()."
        );
        assert_eq!(told(&[("a", None, None)]), None);
        assert_eq!(told(&[("a", Some("did not return"), None)]), None);
    }
}
