#!/usr/bin/env bash
# Asks for each lock whether every package has a wheel for the computers that people have: Linux on x86-64 and
# on ARM, macOS on Apple silicon, with Python 3.11 and 3.12. Downloads nothing. Spark comes as an archive of
# Python sources on all of them, which needs no compiler.
set -euo pipefail
cd "$(dirname "$0")/.."
export MACOSX_DEPLOYMENT_TARGET=14.0
nowhere=$(mktemp -d)
trap 'rm -rf "$nowhere"' EXIT
for platform in x86_64-manylinux_2_31 aarch64-manylinux_2_31 aarch64-apple-darwin; do
  for python in 3.11 3.12; do
    for lock in serving jobs dev; do
      .venv/bin/python -m uv pip install --dry-run --quiet --no-deps --only-binary :all: --no-binary pyspark \
        --python-platform "$platform" --python-version "$python" --target "$nowhere" -r "requirements/$lock.txt"
    done
    echo "$platform, Python $python: a wheel for every package"
  done
done
