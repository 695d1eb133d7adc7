//! Builds the BPF programs of `ebpf/programs`, with their own compiler and settings, into one
//! object for the agent.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Variables of the surrounding build that the other one must not see.
const FOREIGN: [&str; 9] = [
    "RUSTC",
    "RUSTDOC",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_LINKER",
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_TARGET_DIR",
];

const LINKER: &str = "bpf-linker";

fn main() {
    if let Err(reason) = build() {
        println!("cargo::error={reason}");
    }
}

fn build() -> Result<(), String> {
    let variable = |name: &str| env::var_os(name).map(PathBuf::from).ok_or_else(|| format!("cargo has not set {name}"));
    let programs = variable("CARGO_MANIFEST_DIR")?.join("../programs");
    let out = variable("OUT_DIR")?;
    for input in ["src", "Cargo.toml", "Cargo.lock", ".cargo/config.toml", "../abi/src", "../abi/Cargo.toml"] {
        println!("cargo::rerun-if-changed={}", programs.join(input).display());
    }
    for name in ["BPF_LINKER", "FUZZ_CACHE", "XDG_CACHE_HOME", "HOME", "PATH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let target = out.join("bpf");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // The folder decides which settings cargo reads.
    cargo.current_dir(&programs).args(["build", "--release", "--locked", "--target-dir"]).arg(&target);
    cargo.env("PATH", path_with_linker()?);
    for name in FOREIGN {
        cargo.env_remove(name);
    }
    let status = cargo.status().map_err(|error| format!("cannot run cargo for the BPF programs: {error}"))?;
    if !status.success() {
        return Err("the BPF programs (ebpf/programs) do not build; scripts/setup installs what that takes".to_owned());
    }
    let object = target.join("bpfel-unknown-none/release/programs");
    fs::copy(&object, out.join("programs.o")).map_err(|error| format!("cannot copy {}: {error}", object.display()))?;
    Ok(())
}

/// PATH, with the folder of the linker in front: `$BPF_LINKER` (a folder), else where it is on PATH
/// already, else where `scripts/bpf-toolchain` puts it.
fn path_with_linker() -> Result<OsString, String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folder = match env::var_os("BPF_LINKER") {
        Some(folder) if has_linker(Path::new(&folder)) => PathBuf::from(folder),
        Some(folder) => return Err(format!("BPF_LINKER={} is no folder with {LINKER} in it", folder.display())),
        None => env::split_paths(&path)
            .find(|folder| has_linker(folder))
            .or_else(cached_linker)
            .ok_or_else(|| format!("{LINKER}, which links the BPF programs, is missing: run scripts/bpf-toolchain"))?,
    };
    env::join_paths(std::iter::once(folder).chain(env::split_paths(&path))).map_err(|error| error.to_string())
}

fn has_linker(folder: &Path) -> bool {
    folder.join(LINKER).is_file()
}

/// The newest linker in the cache, by name.
fn cached_linker() -> Option<PathBuf> {
    let in_home = |name: &str, below: &str| env::var_os(name).map(|folder| Path::new(&folder).join(below));
    let cache = in_home("FUZZ_CACHE", "")
        .or_else(|| in_home("XDG_CACHE_HOME", "fuzz"))
        .or_else(|| in_home("HOME", ".cache/fuzz"))?;
    let is_one = |name: &OsStr| name.to_string_lossy().starts_with("bpf-linker-");
    let folders = fs::read_dir(cache).ok()?.filter_map(Result::ok).filter(|entry| is_one(&entry.file_name()));
    folders.map(|entry| entry.path().join("bin")).filter(|folder| has_linker(folder)).max()
}
