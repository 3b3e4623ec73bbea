#!/usr/bin/env bash
# Makes .venv from the locked requirements, and sees to it that there is a Java for Spark.
# Run by `make`; a second run with nothing changed does nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

python=""
for candidate in "${TOLLGATE_PYTHON:-}" python3.11 python3.12 python3 python; do
  [ -n "$candidate" ] || continue
  if "$candidate" -c 'import sys; sys.exit(not ((3, 11) <= sys.version_info[:2] <= (3, 12)))' 2>/dev/null; then
    python=$candidate
    break
  fi
done
if [ -z "$python" ]; then
  echo "Tollgate needs Python 3.11 or 3.12: install one, or name it in TOLLGATE_PYTHON." >&2
  exit 1
fi

java_works() { "${JAVA_HOME:+$JAVA_HOME/bin/}java" -version >/dev/null 2>&1; }
if ! java_works; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing a Java 17 runtime for Spark"
    apt-get update -qq && apt-get install -y -qq --no-install-recommends openjdk-17-jre-headless >/dev/null
  fi
  if ! java_works; then
    echo "Tollgate's Spark jobs need Java 17 or newer: install one (Debian: apt-get install openjdk-17-jre-headless) or set JAVA_HOME." >&2
    exit 1
  fi
fi

wanted=$(cat requirements/dev.txt pyproject.toml | cksum)
if [ -x .venv/bin/python ] && [ "$(cat .venv/ready 2>/dev/null)" = "$wanted" ]; then
  exit 0
fi
echo "installing the locked packages into .venv"
[ -x .venv/bin/python ] || "$python" -m venv .venv
# uv installs the lock in seconds; where it cannot reach its index, pip does the same in minutes.
pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }
.venv/bin/python -m uv --version >/dev/null 2>&1 || pip install --quiet --require-hashes --no-deps -r requirements/installer.txt
# Where Python may not keep what it compiles, every process would compile Feast and Spark's API anew.
compile=""
[ -z "${PYTHONDONTWRITEBYTECODE:-}" ] || compile=--compile-bytecode
if ! .venv/bin/python -m uv pip install --quiet $compile --python .venv/bin/python --require-hashes --no-deps -r requirements/dev.txt; then
  pip install --quiet --require-hashes --no-deps -r requirements/dev.txt
fi
# A build environment of its own would fetch a setuptools that nobody has the hash of.
.venv/bin/python -c "import setuptools" 2>/dev/null || pip install --quiet --require-hashes --no-deps -r requirements/build.txt
pip install --quiet --no-deps --no-build-isolation -e .
.venv/bin/python -m bentos.features.warm_up  # windows as machine code, once instead of in every first process
echo "$wanted" > .venv/ready
