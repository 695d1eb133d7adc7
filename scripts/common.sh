# shellcheck shell=bash
# Parts that the scripts share; sourced, never run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Absolute, also for what the scripts run in another folder.
cache=$(realpath -m "${FUZZ_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/fuzz}")
target=$(realpath -m "${CARGO_TARGET_DIR:-$root/target}")
export FUZZ_CACHE=$cache
# Said to cargo as well, whose own settings may name another folder or another machine.
export CARGO_TARGET_DIR=$target
unset CARGO_BUILD_TARGET
# Where fuzz looks for the checkout and for what scripts/build made.
export FUZZ_ROOT=$root FUZZ_AGENT=$target/x86_64-unknown-linux-gnu/release/agent
export root cache target

# find_qemu: finds a QEMU that could not be installed beside the machine's packages, and that
# scripts/setup has unpacked. Who runs that calls it again: there was none before.
find_qemu() {
    local unpacked
    command -v qemu-system-x86_64 >/dev/null && return
    for unpacked in "$cache"/qemu-*/usr/bin; do
        [[ ! -x $unpacked/qemu-system-x86_64 ]] || PATH=$unpacked:$PATH
    done
}
find_qemu

# Exit status of everything that the user's machine lacks, as of `fuzz` itself.
ENVIRONMENT=3

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

lacking() {
    say "$@"
    exit "$ENVIRONMENT"
}

# timed WHAT COMMAND...: announces a long step and says afterwards how long it took.
timed() {
    local what=$1 begin=$SECONDS
    shift
    say "$what"
    "$@" || {
        local status=$?
        say "$what: failed after $((SECONDS - begin)) s"
        return "$status"
    }
    say "$what: done in $((SECONDS - begin)) s"
}

# tests OPTION...: runs cargo's tests. Shows how many passed, and all output when one failed or none
# ran.
tests() {
    local log=$target/tests.log passed
    mkdir -p "$target"
    cargo test --quiet "$@" >"$log" 2>&1 || {
        local status=$?
        cat "$log" >&2
        return "$status"
    }
    passed=$(awk '/^test result: ok\./ { passed += $4 } END { print passed + 0 }' "$log")
    if [[ $passed == 0 ]]; then
        cat "$log" >&2
        say "no test ran"
        return 1
    fi
    say "$passed tests passed"
}

# cargo_install CRATE VERSION FOLDER OPTION...: installs a program. Settings of a surrounding build
# must not reach it, and the checkout says which cargo.
cargo_install() {
    local crate=$1 version=$2 folder=$3
    shift 3
    (
        cd "$root" || exit
        env -u CARGO_TARGET_DIR -u CARGO_BUILD_TARGET -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS \
            cargo install "$crate" --version "$version" --locked --force --quiet \
            --no-default-features --root "$folder" "$@" >&2
    )
}
