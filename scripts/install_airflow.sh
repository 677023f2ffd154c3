#!/usr/bin/env bash
# Airflow in an environment of its own: its libraries and the platform's do not go together.
set -euo pipefail
cd "$(dirname "$0")/.."
key=$(cksum <constraints-airflow.txt)
[ "$(cat .venv-airflow/stamp 2>/dev/null)" = "$key" ] && exit 0
echo "setup: Airflow …"
if ! .venv/bin/uv venv -q --clear -p .venv/bin/python .venv-airflow ||
  ! .venv/bin/uv pip install -q --compile-bytecode -p .venv-airflow/bin/python -c constraints-airflow.txt apache-airflow; then
  echo "Set-up stopped at Airflow; the lines above say why. Mend the cause and run make airflow again." >&2
  exit 1
fi
echo "$key" >.venv-airflow/stamp
echo "setup: Airflow done in $SECONDS s"
