//! The C compiler of this machine.

use std::{
    fs, io,
    process::{Command, Stdio},
};

use thiserror::Error;

/// Why a program cannot be compiled.
#[derive(Debug, Error)]
pub enum CompileError {
    /// There is no compiler, or it cannot be used.
    #[error("cannot run cc: install the packages gcc and libc6-dev")]
    Run {
        /// Underlying error.
        source: io::Error,
    },
    /// It does not take the program.
    #[error("cc does not take the program (a static C library is needed: libc6-dev): {output}")]
    Refused {
        /// Text that it printed.
        output: String,
    },
}

/// Compiles the C program `text` to a static executable.
///
/// # Errors
///
/// There is no compiler, or it refuses the program.
pub fn compile(text: &str) -> Result<Vec<u8>, CompileError> {
    let run = |source| CompileError::Run { source };
    let folder = tempfile::tempdir().map_err(run)?;
    let (source, program) = (folder.path().join("program.c"), folder.path().join("program"));
    fs::write(&source, text).map_err(run)?;
    let mut command = Command::new("cc");
    command
        .args(["-static", "-O1", "-Wall", "-Wno-unused-function", "-o"])
        .arg(&program)
        .arg(&source)
        .stdin(Stdio::null());
    let output = command.output().map_err(run)?;
    if !output.status.success() || !output.stderr.is_empty() {
        return Err(CompileError::Refused { output: String::from_utf8_lossy(&output.stderr).into_owned() });
    }
    fs::read(program).map_err(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_compiled_or_refused_with_the_compilers_words() {
        let program = compile("int main(void) { return 0; }\n").unwrap();
        assert_eq!(&program[..4], b"\x7fELF");
        let refused = compile("int main(void) { return nothing; }\n").unwrap_err().to_string();
        assert!(refused.contains("nothing"), "{refused}");
        let warned = compile("int main(void) { int unused; return 0; }\n").unwrap_err().to_string();
        assert!(warned.contains("unused"), "{warned}");
    }
}
