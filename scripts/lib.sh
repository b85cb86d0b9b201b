# Sourced by the scripts here. What needs servers, waits and clean-up is in tests/harness (Python),
# which has one owner for each process and one place that ends it.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=/usr/bin/python3

say() {
    printf '%s\n' "$*"
}

# Every argument is a line.
die() {
    printf 'error: %s\n' "$1" >&2
    shift
    (($# == 0)) || printf '%s\n' "$@" >&2
    exit 1
}

# build PRESET TARGET...: configures once, builds; the log is shown only if it failed.
build() {
    local preset=$1
    shift
    local dir=$root/build/$preset
    local log=$dir/build.log
    mkdir -p "$dir"
    (
        cd "$root"
        [[ -f $dir/build.ninja ]] || cmake --preset "$preset"
        cmake --build "$dir" ${1:+--target "$@"}
    ) >"$log" 2>&1 || {
        tail -n 40 "$log" >&2
        printf 'error: the build failed (log: %s)\n' "$log" >&2
        return 1
    }
}
