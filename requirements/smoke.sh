#!/usr/bin/env bash
# Installs the lock for each supported Python but .venv's own (whose tests are the whole suite), and tries it: the
# pure core, the command, first requests of a worker, the flow's states. A Python that is not on this machine is
# left out, and said.
set -euo pipefail
cd "$(dirname "$0")/.."
export UV_PYTHON_DOWNLOADS=never
mine=$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
uv() { .venv/bin/python -m uv "$@"; }
for python in 3.11 3.12; do
  [ "$python" != "$mine" ] || continue
  program=""
  for candidate in "$(command -v "python$python" || true)" "${HOME:-}/.pyenv/versions/$python".*/bin/python; do
    if [ -x "$candidate" ] && "$candidate" -c '' 2>/dev/null; then
      program=$candidate
      break
    fi
  done
  if [ -z "$program" ]; then
    echo "Python $python is not on this machine: not tried"
    continue
  fi
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
  uv venv --quiet --python "$program" "$folder/venv"
  uv pip install --quiet --python "$folder/venv/bin/python" --require-hashes --no-deps -r requirements/dev.txt
  if ! "$folder/venv/bin/python" -m pytest -q -p no:cacheprovider tests/fraud tests/tollgate/test_command.py \
    tests/bentos/features/test_first_request.py tests/streaming/states -k "not feast" >"$folder/log" 2>&1; then
    cat "$folder/log"
    echo "Python $python: installed from the lock, but the tests above fail" >&2
    exit 1
  fi
  echo "Python $python: installed from the lock, $(grep -oE '[0-9]+ passed' "$folder/log" | tail -1)"
done
