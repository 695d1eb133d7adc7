//! Kconfig fragments: what a kernel's configuration must say, and whether a finished one says it.

use std::collections::BTreeMap;

/// A line of a fragment that is no option.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadLine {
    /// Number of the line, from 1.
    pub(super) line: usize,
    /// Defect of the line.
    pub(super) reason: &'static str,
}

/// The value of every option named in `text`; `None` for `# CONFIG_X is not set`.
///
/// The lines are those that `conf_read_simple()` in `scripts/kconfig/confdata.c` (Linux 6.12)
/// understands, but where it warns or is silent about anything else, that is refused here.
fn parse(text: &str) -> Result<BTreeMap<&str, Option<&str>>, BadLine> {
    let mut options = BTreeMap::new();
    for (line, content) in (1..).zip(text.lines()) {
        let refuse = |reason| Err(BadLine { line, reason });
        let content = content.trim_end();
        let (name, value) = if let Some(name) = unset(content) {
            (name, None)
        } else if content.is_empty() || content.starts_with('#') {
            continue;
        } else if let Some((name, value)) = content.split_once('=') {
            (name, (value != "n").then_some(value))
        } else {
            return refuse("neither CONFIG_X=value, '# CONFIG_X is not set' nor a comment");
        };
        if !name.starts_with("CONFIG_") || name.contains(char::is_whitespace) {
            return refuse("an option's name starts with CONFIG_ and has no spaces");
        }
        if options.insert(name, value).is_some() {
            return refuse("the option was already given above");
        }
    }
    Ok(options)
}

fn unset(line: &str) -> Option<&str> {
    line.strip_prefix("# ")?.strip_suffix(" is not set").filter(|name| name.starts_with("CONFIG_"))
}

/// Says whether `fragment` can be read.
pub(super) fn check(fragment: &str) -> Result<(), BadLine> {
    parse(fragment).map(drop)
}

/// Lists the options that the finished `config` does not set as `fragment` asks, one line for each.
///
/// Kconfig drops an option silently when something it depends on is missing, and adds one that
/// something selects.
pub(super) fn unmet(fragment: &str, config: &str) -> Result<Vec<String>, BadLine> {
    let finished = parse(config)?;
    let differs = parse(fragment)?.into_iter().filter_map(|(name, wanted)| {
        let found = finished.get(name).copied().flatten();
        (found != wanted).then(|| format!("{name}: asked for {}, became {}", shown(wanted), shown(found)))
    });
    Ok(differs.collect())
}

fn shown(value: Option<&str>) -> &str {
    value.unwrap_or("n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_that_did_not_survive_is_named() {
        let fragment = "# machine\nCONFIG_PVH=y\n# CONFIG_MODULES is not set\nCONFIG_XFS_FS=y\nCONFIG_HZ=100\n\
                        CONFIG_VT=n\nCONFIG_LOCALVERSION=\"-fuzz\"\n# CONFIG_GONE is not set\n";
        let config = "#\n# Automatically generated file; DO NOT EDIT.\n#\nCONFIG_PVH=y\nCONFIG_MODULES=y\n\
                      # CONFIG_XFS_FS is not set\nCONFIG_HZ=250\n# CONFIG_VT is not set\nCONFIG_LOCALVERSION=\"-fuzz\"\n";
        assert_eq!(
            unmet(fragment, config).unwrap(),
            [
                "CONFIG_HZ: asked for 100, became 250",
                "CONFIG_MODULES: asked for n, became y",
                "CONFIG_XFS_FS: asked for y, became n",
            ]
        );
    }

    #[test]
    fn an_option_that_is_absent_counts_as_not_set() {
        assert_eq!(unmet("# CONFIG_A is not set\nCONFIG_B=n\n", "").unwrap(), Vec::<String>::new());
        assert_eq!(unmet("CONFIG_A=y\n", "").unwrap(), ["CONFIG_A: asked for y, became n"]);
    }

    #[test]
    fn what_is_no_option_is_refused_with_its_line() {
        let line = |text| check(text).unwrap_err().line;
        assert_eq!(line("CONFIG_A=y\nPVH=y\n"), 2);
        assert_eq!(line("\n\nCONFIG_A\n"), 3);
        assert_eq!(line("CONFIG_A =y\n"), 1);
        assert_eq!(line("CONFIG_A=y\n# CONFIG_A is not set\n"), 2);
        assert_eq!(check("# CONFIG is explained here\n# is not set\n"), Ok(()));
    }
}
