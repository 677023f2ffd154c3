#!/usr/bin/env bash
# Fills .venv with everything that the platform needs. Steps that are done leave a stamp and are not repeated.
#   AVREC_JARS_DIR   a folder with the Delta JARs, for a site without Maven
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
BIN=$PWD/.venv/bin
STAMPS=.venv/stamps
LOGS=.cache/logs
mkdir -p "$LOGS"

# step NAME INPUT… -- COMMAND…: run once for each state of the inputs, output to a log.
step() {
  local name=$1 key started; shift
  local inputs=()
  while [ "$1" != -- ]; do inputs+=("$1"); shift; done
  shift
  key=$(cat "${inputs[@]}" </dev/null | cksum | tr ' ' -)
  [ "$(cat "$STAMPS/$name" 2>/dev/null)" = "$key" ] && return 0
  started=$SECONDS
  echo "setup: $name …"
  if ! "$@" >"$LOGS/$name.log" 2>&1; then
    tail -n 15 "$LOGS/$name.log" >&2
    echo "Set-up stopped at the step $name; the lines above are the end of $PWD/$LOGS/$name.log. Mend the cause and run make setup again: the steps before it are not repeated." >&2
    return 1
  fi
  mkdir -p "$STAMPS"; echo "$key" >"$STAMPS/$name"
  echo "setup: $name done in $((SECONDS - started)) s"
}

environment() {
  "$PYTHON" -m venv .venv
  "$BIN/pip" install --disable-pip-version-check -c constraints.txt uv
}

# What setup.py requires, and what the build of Horovod and of the package itself needs beside it.
libraries() {
  "$BIN/uv" pip install -p "$BIN/python" -c constraints.txt \
    -r <("$BIN/python" scripts/requirements.py training text dev) cmake wheel cffi psutil cloudpickle pyyaml
}

package() { "$BIN/uv" pip install -p "$BIN/python" --no-deps --no-build-isolation -e .; }

horovod() {
  # Horovod asks its compiler for C++14, torch's headers for C++17: the last flag wins.
  mkdir -p .cache/horovod
  printf '#!/bin/sh\nexec g++ "$@" -std=gnu++17\n' >.cache/horovod/cxx
  chmod +x .cache/horovod/cxx
  PATH=$BIN:$PATH CXX=$PWD/.cache/horovod/cxx CMAKE_POLICY_VERSION_MINIMUM=3.5 MAKEFLAGS=-j$(nproc) \
    HOROVOD_WITH_PYTORCH=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1 \
    HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_MPI=1 \
    "$BIN/uv" pip install -p "$BIN/python" -c constraints.txt --no-build-isolation --no-deps horovod
}

jars() { "$BIN/python" scripts/fetch_jars.py; }

# librosa compiles its kernels on first use and keeps them: better here than in the first run.
warm_up() {
  "$BIN/python" -c "
import numpy as np
from avrec_spark.encoders.audio import describe
describe(np.random.default_rng(0).normal(size=22050).astype('f4'), 22050)"
}

if [ ! -x "$BIN/uv" ]; then rm -rf "$STAMPS"; fi
step environment scripts/install.sh -- environment
step libraries constraints.txt setup.py scripts/requirements.py -- libraries
step package setup.py -- package
# Compiling and downloading do not compete.
step jars constraints.txt scripts/fetch_jars.py -- jars & fetching=$!
step horovod constraints.txt -- horovod
wait $fetching
step warm_up avrec_spark/encoders/audio.py -- warm_up
