//! What the agent says on the console and the host reads there.

/// Words above the functions in which a step runs for long.
const STEP_RUNS: &str = "a step still runs in";
/// Start of each line with such a function, as `/proc/PID/stack` has it.
const FRAME: &str = "[<0>] ";

/// Gives the agent's words for a step that runs in a `stack`, which is the text of
/// `/proc/PID/stack`.
#[must_use]
pub fn step_runs(stack: &str) -> String {
    format!("{STEP_RUNS}\n{stack}")
}

/// Gives the functions in which a step ran, innermost first, when the agent last said so on the
/// `console`. The kernel may have said something in between.
pub fn step_ran(console: &str) -> Option<impl Iterator<Item = &str>> {
    let (_, since) = console.rsplit_once(STEP_RUNS)?;
    Some(since.lines().filter_map(|line| line.strip_prefix(FRAME)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_agent_said_last_of_a_step_that_runs_is_read() {
        assert!(step_ran("agent: up\n").is_none());
        let console = format!(
            "agent: {}agent: {}[   1.000000] EXT4-fs error\n[<0>] outer+0x1/0x2\n\n",
            step_runs("[<0>] first+0x1/0x2\n"),
            step_runs("[<0>] inner+0x1/0x2\n"),
        );
        assert_eq!(step_ran(&console).unwrap().collect::<Vec<_>>(), ["inner+0x1/0x2", "outer+0x1/0x2"]);
    }
}
