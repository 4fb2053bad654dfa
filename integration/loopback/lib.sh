# Shared by up, down, run and scenarios: where things are, and how a program gets into the lab's own namespaces.
# shellcheck shell=bash disable=SC2034

loopback=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
root=$(realpath "$loopback/../..")
run=${LOOPBACK_RUN:-${CARGO_TARGET_DIR:-$root/target}/loopback}     # configuration, logs, process ids
tools=${PAGECAST_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/pagecast-tools}
pids=$run/pids
PATH=$PATH:/usr/sbin:/sbin

# inside PROGRAM [ARGUMENTS]: replaces this shell by a program on the lab's network, with the lab's name server.
inside() {
    local pid
    pid=$(cat "$pids/namespace" 2>/dev/null) || {
        echo "the lab is not up: integration/loopback/up" >&2
        exit 1
    }
    if [ "$(id -u)" = 0 ]; then
        exec nsenter -t "$pid" -n -m -r --wd="$PWD" -- "$@"
    else
        exec nsenter -t "$pid" -U --preserve-credentials -n -m -r --wd="$PWD" -- "$@"
    fi
}
