#!/usr/bin/env bash
# Makes the locks of what the images install, for Python 3.10 to 3.12: the versions of requirements.lock (Python 3.11),
# and other ones only where those have no wheel. uv comes from PyPI, into a virtual environment that is thrown away.
set -euo pipefail
cd "$(dirname "$0")/.."

tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
python3 -m venv "$tools"
"$tools/bin/pip" install --quiet --disable-pip-version-check uv==0.13.9

for name in requirements requirements-server; do
    # uv keeps the versions that it finds in the file that it writes.
    cp requirements.lock "$tools/lock"
    "$tools/bin/uv" pip compile "docker/$name.in" --quiet --universal --python-version 3.10 --only-binary :all: \
        --no-annotate --no-header --no-emit-package trireme-client --no-emit-package trireme-recsys \
        --output-file "$tools/lock" > /dev/null
    { echo "# Made of $name.in by docker/lock.sh (make image-locks); for Python 3.10 to 3.12 on Linux."
      grep --invert-match win32 "$tools/lock"; } > "docker/$name.lock"
done
