#!/usr/bin/env bash
# Runs a repository of target gpu in NVIDIA's container and collects what one needs to know about it in one file:
#   docker/gpu-report.sh REPOSITORY [REPORT.tar.gz]
#
# Needs docker, NVIDIA's container toolkit, a GPU, some 40 GB of disk for two images, and about a quarter of an hour beside
# the downloads. It builds the image and the TensorRT plans (written into the repository), starts the server, whose answers
# are compared with the export's before it is ready, and measures. RELEASE names another release of NVIDIA's images.
# The report names the GPU, its driver and versions of software; nothing of the data but the number of users and items.
set -euo pipefail

release=${RELEASE:-26.08}
image=trireme:gpu
sdk=nvcr.io/nvidia/tritonserver:$release-py3-sdk
container=trireme-gpu-report
ready_within=900 # seconds

die() { printf '%s\n' "$*" >&2 && exit 1; }
say() { printf '%s\n' "$*"; }
run() { docker run --rm --gpus all --user "$(id -u):$(id -g)" --shm-size 1g "$@"; }
inside() { docker exec "$container" "$@"; }

clean_up() {
    [ -z "${watching:-}" ] || kill "$watching" 2> /dev/null || true
    docker logs "$container" > "$out/server.log" 2>&1 || true
    docker rm --force "$container" > /dev/null 2>&1 || true
    tar -C "$(dirname "$out")" -czf "$report" "$(basename "$out")"
    say "$report: send this file"
}

describe_machine() {
    nvidia-smi > "$out/nvidia-smi.txt"
    nvidia-smi -q > "$out/nvidia-smi-q.txt"
    nvidia-smi --query-gpu=name,compute_cap,driver_version,memory.total,pcie.link.gen.max --format=csv > "$out/gpu.csv"
    lscpu > "$out/cpu.txt"
    docker version > "$out/docker.txt"
    git rev-parse HEAD > "$out/commit.txt" 2> /dev/null || true
    cp "$repository/recommend/config.pbtxt" "$out/"
    cp "$(find "$repository/recommend" -name manifest.json | sort -V | tail -n 1)" "$out/"
}

describe_image() {
    docker image inspect --format '{{.Size}} {{json .RepoDigests}} {{.Id}}' "$image" > "$out/image.txt"
    run "$image" env | grep -E '^(NVIDIA|TRITON|TENSORRT|CUDA|CUDNN)[A-Z_]*VERSION' | sort > "$out/versions.txt" || true
    run "$image" /usr/bin/python3 -m pip --python /opt/trireme/bin/python freeze > "$out/packages.txt"
}

wait_until_healthy() {
    local waited=0 health
    until health=$(docker inspect --format '{{.State.Health.Status}}' "$container") && [ "$health" = healthy ]; do
        [ "$(docker inspect --format '{{.State.Running}}' "$container")" = true ] || die "the server has ended; see server.log in $report"
        [ "$waited" -lt "$ready_within" ] || die "the server is not ready after $ready_within s; see server.log in $report"
        sleep 1
        waited=$((waited + 1))
    done
    say "healthy after $waited s" | tee "$out/ready.txt"
}

measure() { # MODEL
    local model=$1 concurrency
    for concurrency in 1 8 32 128; do
        say "perf_analyzer: $model, $concurrency requests in flight"
        docker run --rm --network "container:$container" --user "$(id -u):$(id -g)" \
            --volume "$repository/perf_input.json:/perf_input.json:ro" --volume "$out:/out" "$sdk" \
            perf_analyzer -m "$model" -i grpc -u localhost:8001 --input-data /perf_input.json \
            --concurrency-range "$concurrency" --measurement-interval 5000 -s 50 -v --verbose-csv \
            -f "/out/$model-$concurrency.csv" > "$out/$model-$concurrency.txt" 2>&1 || say "  failed: see $model-$concurrency.txt"
    done
    inside trireme ledger --url localhost:8001 --metrics-url http://localhost:8002/metrics --model "$model" --json \
        > "$out/ledger-$model.txt" 2>&1 || say "  no ledger: see ledger-$model.txt"
}

[ $# -ge 1 ] || die "usage: docker/gpu-report.sh REPOSITORY [REPORT.tar.gz]"
[ -f "$1/recommend/config.pbtxt" ] || die "$1 is no model repository; export one with --target gpu"
grep --quiet --recursive --include=manifest.json '"target": *"gpu"' "$1/recommend" || die "$1 is not of target gpu; export it with --target gpu"
for program in docker nvidia-smi; do
    command -v "$program" > /dev/null || die "$program is not installed"
done
repository=$(realpath "$1")
report=$(realpath --canonicalize-missing "${2:-gpu-report-$(date +%Y%m%d-%H%M%S).tar.gz}")
out=$(mktemp -d)/gpu-report
mkdir "$out"
cd "$(dirname "$0")/.."
trap clean_up EXIT

describe_machine
say "building $image on release $release"
docker build --file docker/Dockerfile --target gpu --tag "$image" \
    --build-arg TRITON_IMAGE="nvcr.io/nvidia/tritonserver:$release-py3" . > "$out/build.log" 2>&1 || die "no image: see build.log in $report"
describe_image

say "building the plans"
run --volume "$repository:/models" "$image" trireme plans build /models 2>&1 | tee "$out/plans.log"

say "starting the server"
docker run --detach --name "$container" --gpus all --read-only --tmpfs /tmp --shm-size 1g --cap-drop all \
    --security-opt no-new-privileges --volume "$repository:/models:ro" "$image" > /dev/null
wait_until_healthy
inside python3 -c "import urllib.request as u; print(u.urlopen('http://localhost:8000/v2').read().decode())" > "$out/server.json"

nvidia-smi --query-gpu=timestamp,utilization.gpu,memory.used,power.draw,clocks.sm --format=csv --loop=1 > "$out/gpu-load.csv" &
watching=$!
measure recommend
[ ! -d "$repository/recommend_fused" ] || measure recommend_fused
inside python3 -c "import urllib.request as u; print(u.urlopen('http://localhost:8002/metrics').read().decode())" > "$out/metrics.txt"
