#!/usr/bin/env bash
# Writes the locks: one resolution of everything, then its parts by purpose, each with hashes and no index.
#   dev.txt      what `make` installs: the platform, its tests, its benchmarks
#   jobs.txt     the platform at run time: stream, Spark jobs, training, monitoring, service (deploy/Dockerfile)
#   serving.txt  the scoring service alone (bentofile.yaml)
# With --upgrade newer versions are taken; without, only what pyproject.toml asks for changes.
set -euo pipefail
cd "$(dirname "$0")/.."
compile() {
  .venv/bin/python -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --custom-compile-command "requirements/lock.sh" "$@"
}
compile pyproject.toml --extra dev --extra bench --extra tracing --extra docs -o requirements/dev.txt "$@"
compile pyproject.toml --extra tracing --extra postgres -c requirements/dev.txt -o requirements/jobs.txt
compile --group pyproject.toml:serving -c requirements/dev.txt -o requirements/serving.txt
