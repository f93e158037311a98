#!/usr/bin/env bash
# Builds both images and runs them: docker/verify.sh [REPOSITORY] (default build/model_repository; `make demo` makes one).
#
# With docker, or else with podman (Debian: apt-get install podman buildah runc debootstrap), then as root and on a base
# image of its own, for which it needs no registry. NVIDIA's image has a stand-in (verify/nvidia.Dockerfile), unless
# TRITON_IMAGE names a real one; PYTHON_IMAGE names another base. Takes some ten minutes the first time. Logs, and with
# podman the images (11 GB), stay in /var/tmp/trireme-images.
set -euo pipefail
cd "$(dirname "$0")/.."

repository=$(realpath "${1:-build/model_repository}")
work=/var/tmp/trireme-images
grace=30 # seconds, as in compose.yaml
container=trireme-verify

say() { printf '%s\n' "$*"; }
fail() {
    say "FAILED: $*" >&2
    "$engine" logs --tail 15 "$container" >&2 || true
    exit 1
}

use_podman() {
    export CONTAINERS_CONF=$PWD/docker/verify/containers.conf CONTAINERS_STORAGE_CONF=$work/storage.conf
    printf '[storage]\ndriver = "vfs"\ngraphroot = "%s/storage"\nrunroot = "%s/run"\n' "$work" "$work" > "$work/storage.conf"
    build_options=(--format docker --network host)
    python_image=${PYTHON_IMAGE:-localhost/trireme-verify-base}
    podman image exists "$python_image" || make_base
}

use_docker() {
    build_options=()
    python_image=${PYTHON_IMAGE:-python:3.11-slim}
}

make_base() { # Debian with its Python 3.11, and with the certificates that this machine trusts
    say "making a base image of Debian's packages"
    local root=$work/base packages=python3,python3-pip,libpython3.11,ca-certificates
    rm -rf "$root"
    debootstrap --variant=minbase --include="$packages" bookworm "$root" > "$work/debootstrap.log"
    rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*
    cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
    tar -C "$root" -c . | podman import --quiet - "$python_image" > /dev/null
    rm -rf "$root"
}

build() { # TAG [OPTION…]
    local tag=$1
    shift
    say "building $tag"
    "$engine" build "${build_options[@]}" --tag "$tag" --build-arg PYTHON_IMAGE="$python_image" "$@" . \
        > "$work/build.log" 2>&1 || { tail -n 20 "$work/build.log" >&2 && fail "$tag is not built"; }
}

is_healthy() {
    case $engine in
        podman) podman healthcheck run "$container" > /dev/null 2>&1 ;;
        docker) [ "$(docker inspect --format '{{.State.Health.Status}}' "$container")" = healthy ] ;;
    esac
}

is_ready() { # what Triton says, over HTTP, which only the container itself reaches
    inside /opt/trireme/bin/python3 -c "
import urllib.request
urllib.request.urlopen('http://127.0.0.1:$inside_http/v2/health/ready', timeout=1)" 2> /dev/null
}
state() { "$engine" inspect --format "{{.State.$1}}" "$container"; }
inside() { "$engine" exec "$container" "$@"; }
python_of() { "$engine" run --rm --interactive --network host --entrypoint /opt/trireme/bin/python3 "$@"; }

use_ports() { # published ones with docker; with podman those of the server itself, which is on the network of the host
    read -r http grpc metrics < <(python3 -c "
import socket
sockets = [socket.create_server(('127.0.0.1', 0)) for _ in range(3)]
print(*(one.getsockname()[1] for one in sockets))")
    case $engine in
        podman)
            inside_grpc=$grpc inside_http=$http
            run_options=(--network host --read-only-tmpfs=false)
            serve=(trireme serve /models --host 127.0.0.1 --http-port "$http" --grpc-port "$grpc" --metrics-port "$metrics")
            ;;
        docker)
            inside_grpc=8001 inside_http=8000
            run_options=(-p "127.0.0.1:$grpc:8001" -p "127.0.0.1:$metrics:8002")
            serve=()
            ;;
    esac
}

start() { # IMAGE
    use_ports
    "$engine" rm --force "$container" > /dev/null 2>&1 || true
    "$engine" run --detach --name "$container" --read-only --tmpfs /tmp --shm-size 1g --cap-drop all \
        --security-opt no-new-privileges --stop-timeout "$grace" --volume "$repository:/models:ro" \
        "${run_options[@]}" "$1" "${serve[@]}" > /dev/null 2> "$work/run.log" || fail "$1 does not start: $(cat "$work/run.log")"
}

wait_until_healthy() { # before the warm-up has ended, the check must not say so, whatever Triton says
    local early=0 before=0
    until is_healthy; do
        [ "$(state Running)" = true ] || fail "it ended with exit code $(state ExitCode)"
        before=$((before + 1))
        if is_ready; then early=$((early + 1)); fi
        sleep 0.1
    done
    ready_at=$(date +%s%N)
    [ "$before" -gt 0 ] || fail "it was healthy at once"
    "$engine" logs "$container" 2>&1 | grep --quiet "^ready: grpc" || fail "it was healthy before the warm-up had ended"
    say "  unhealthy $before times, $early of them when Triton already said ready; then healthy"
}

check_inside() {
    [ "$(inside id -u)" = 10001 ] || fail "it runs as user $(inside id -u)"
    [ "$(inside sed -n 's/^CapEff:\t//p' /proc/1/status)" = 0000000000000000 ] || fail "it has capabilities"
    if inside touch /home/trireme/file 2> /dev/null; then fail "its root can be written"; fi
    say "  user 10001, no capabilities, root read-only; $(inside sh -c 'tr "\0" " " < /proc/1/cmdline')"
}

stop_under_load() { # IMAGE
    local asked=$work/callers.log
    python_of "$1" - "127.0.0.1:$grpc" recommend recommend_fused < docker/verify/callers.py > "$asked" 2> "$work/callers.err" &
    local callers=$!
    until grep --quiet asking "$asked"; do
        kill -0 "$callers" 2> /dev/null || fail "the callers ended: $(tail -n 3 "$work/callers.err")"
        sleep 0.2
    done
    sleep 5
    local from
    from=$(date +%s%N)
    "$engine" stop --time "$grace" "$container" > /dev/null 2>&1
    local stop_ms=$((($(date +%s%N) - from) / 1000000))
    wait "$callers" || fail "the callers failed: $(tail -n 3 "$work/callers.err")"
    say "  SIGTERM under load: exit code $(state ExitCode) after $stop_ms ms; calls: $(tail -n 1 "$asked")"
    [ "$(state ExitCode)" = 0 ] || fail "exit code $(state ExitCode), not 0"
    [ "$stop_ms" -lt $((grace * 1000)) ] || fail "it had to be killed after $stop_ms ms"
    grep --quiet '"lost": 0' "$asked" || fail "calls got neither an answer nor an error"
    if grep --quiet '"errors": {}' "$asked"; then fail "no call met the stop"; fi
}

check() { # IMAGE
    say "$1"
    start "$1"
    wait_until_healthy
    local started_at
    started_at=$(date --date "$(state StartedAt | sed -E 's/ \+0000 UTC$/Z/')" +%s%N)
    say "  time to healthy: $(((ready_at - started_at) / 1000000)) ms; $("$engine" logs "$container" 2>&1 | grep -o 'loaded in .*')"
    check_inside
    inside trireme ledger --url "localhost:$inside_grpc" --json > "$work/ledger.log" 2>&1 || fail "it has no ledger"
    stop_under_load "$1"
    "$engine" rm "$container" > /dev/null 2>&1
    say "  $(("$("$engine" image inspect --format '{{.Size}}' "$1")" / 1000000)) MB:"
    "$engine" history --format '{{.Size}}|{{.CreatedBy}}' "$1" | grep -v '^0 \?B' \
        | sed -E 's/^([^|]*)\|(.{0,80}).*/    \1  \2/'
}

[ -f "$repository/recommend/config.pbtxt" ] || { say "$repository is no model repository; run make demo" >&2 && exit 1; }
mkdir -p "$work"
if docker info > /dev/null 2>&1; then engine=docker; else engine=podman; fi
"use_$engine"

build trireme:cpu --file docker/Dockerfile --target cpu
triton_image=${TRITON_IMAGE:-}
if [ -z "$triton_image" ]; then
    triton_image=localhost/nvidia-stand-in
    build "$triton_image" --file docker/verify/nvidia.Dockerfile
fi
build trireme:gpu --file docker/Dockerfile --target gpu --build-arg TRITON_IMAGE="$triton_image"

check trireme:cpu
check trireme:gpu
say "all well"
