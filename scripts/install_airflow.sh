#!/usr/bin/env bash
# Airflow in an environment of its own: its libraries and the platform's do not go together.
set -euo pipefail
cd "$(dirname "$0")/.."
key=$(cksum <constraints-airflow.txt)
[ "$(cat .venv-airflow/stamp 2>/dev/null)" = "$key" ] && exit 0
echo "setup: Airflow …"
.venv/bin/uv venv -q --clear -p .venv/bin/python .venv-airflow
.venv/bin/uv pip install -q -p .venv-airflow/bin/python -c constraints-airflow.txt apache-airflow
echo "$key" >.venv-airflow/stamp
