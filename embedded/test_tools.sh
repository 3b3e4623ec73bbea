#!/usr/bin/env bash
# What a few tests need from the system: Prometheus' and Alertmanager's programs, a browser and PostgreSQL.
# Where they cannot be had, those tests are skipped and say so; nothing else needs them.
set -uo pipefail
cd "$(dirname "$0")/.."
tools=.venv/tools
has() { [ -x "$tools/$1" ] || command -v "$1" >/dev/null; }

# The programs are taken out of Debian's packages: installing those would start servers on this machine.
fetch() {
  local folder
  folder=$(mktemp -d)
  if (cd "$folder" && apt-get download -qq "$1" 2>/dev/null) && dpkg-deb -x "$folder"/*.deb "$folder/x"; then
    mkdir -p "$tools"
    shift
    for program in "$@"; do
      cp "$folder/x/usr/bin/$program" "$tools/"
    done
    # Alertmanager reads its templates from this one place.
    local templates=/usr/share/prometheus
    if [ -d "$folder/x$templates/alertmanager" ]; then
      mkdir -p $templates && cp -r "$folder/x$templates/alertmanager" $templates/ || rm -f "$tools/prometheus-alertmanager"
    fi
  fi
  rm -rf "$folder"
}

lists_read=""
read_lists() {
  [ -n "$lists_read" ] && return
  lists_read=1
  [ "$(id -u)" != 0 ] || apt-get update -qq 2>/dev/null
}

if command -v apt-get >/dev/null; then
  if ! has promtool; then
    read_lists
    fetch prometheus prometheus promtool
  fi
  if ! has amtool; then
    read_lists
    fetch prometheus-alertmanager prometheus-alertmanager amtool
  fi
  if ! has chromium && [ "$(id -u)" = 0 ]; then
    echo "installing Chromium, which the tests of the pages look with"
    read_lists
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null 2>&1
  fi
  if ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 && ! has initdb && [ "$(id -u)" = 0 ]; then
    echo "installing PostgreSQL, which the tests of shared state ask"
    read_lists
    mkdir -p /etc/postgresql-common # no server of the system's own
    echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql >/dev/null 2>&1
  fi
fi
# A server of the Open Inference Protocol: its pins do not go with ours, so it gets packages of its own.
server="$tools/mlserver"
if [ ! -x "$server/bin/mlserver" ]; then
  echo "installing MLServer, which the test of a remote model asks"
  mkdir -p "$tools"
  locked=(--quiet --require-hashes --no-deps -r tests/bentos/mlserver.txt)
  .venv/bin/python -m venv "$server" && {
    .venv/bin/python -m uv pip install --python "$server/bin/python" "${locked[@]}" >/dev/null 2>&1 ||
      "$server/bin/python" -m pip install --disable-pip-version-check "${locked[@]}" >/dev/null 2>&1
  } || rm -rf "$server"
fi
# Apache Kafka itself, for what the small broker does not have: its jars, for Java alone.
.venv/bin/python -m benchmarks.apache_kafka 2>/dev/null
missing=""
[ -n "$(ls $tools/kafka/libs/kafka_*.jar 2>/dev/null)" ] || missing=" kafka"
[ -x "$server/bin/mlserver" ] || missing="$missing mlserver"
for program in promtool amtool chromium; do
  has "$program" || missing="$missing $program"
done
[ -z "$missing" ] || echo "not on this machine, so the tests that need them are skipped:$missing"
exit 0
