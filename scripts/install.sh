#!/usr/bin/env bash
# Fills .venv with everything that the platform needs. A step that is done leaves a stamp and is repeated only when one
# of its inputs changes.
#   PYTHON           the Python 3.11 to start from
#   AVREC_JARS_DIR   a folder with the Delta JARs, for a site without Maven
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
BIN=$PWD/.venv/bin
STAMPS=.venv/stamps
LOGS=.cache/logs
mkdir -p "$LOGS"

# step NAME INPUT… -- COMMAND: run once for each state of the inputs, with the output in a log.
step() {
  local name=$1 inputs=() key started=$SECONDS
  shift
  while [ "$1" != -- ]; do inputs+=("$1"); shift; done
  key=$(cat "${inputs[@]}" | cksum)
  [ "$(cat "$STAMPS/$name" 2>/dev/null)" = "$key" ] && return
  echo "setup: $name …"
  if ! "$2" >"$LOGS/$name.log" 2>&1; then
    tail -n 15 "$LOGS/$name.log" >&2
    echo "Set-up stopped at the step $name; above are the last lines of $LOGS/$name.log. Mend the cause and run" \
      "make setup again: the steps that are done are not repeated." >&2
    return 1
  fi
  mkdir -p "$STAMPS"
  echo "$key" >"$STAMPS/$name"
  echo "setup: $name done in $((SECONDS - started)) s"
}

# Functions called in a condition run without set -e: each of them is one chain.
environment() {
  "$PYTHON" -m venv .venv &&
    "$BIN/python" -m pip install --disable-pip-version-check -c constraints.txt uv
}

install() { "$BIN/uv" pip install -p "$BIN/python" -c constraints.txt "$@"; }

# What setup.py requires, and what the build of Horovod and of the package itself needs beside it. Compiled at once: ranks,
# workers and decoders are new processes, and where Python may write no bytecode each would compile torch for itself.
# rapidocr-onnxruntime asks for opencv-python, which would overwrite the headless one; all else that it needs is in the
# extra ocr.
libraries() {
  "$BIN/python" scripts/requirements.py training text speech ocr shots transformers s3 dev >"$LOGS/requirements.txt" &&
    install --compile-bytecode -r "$LOGS/requirements.txt" cmake wheel cffi psutil cloudpickle pyyaml &&
    install --compile-bytecode --no-deps rapidocr-onnxruntime
}

package() { install --no-deps --no-build-isolation -e .; }

# Horovod asks its compiler for C++14, torch's headers for C++17: the last flag wins. uv keeps the wheel that comes out,
# and the setting torch= makes it a wheel for this torch only. A compiler takes up to 2 GB for a file.
horovod() {
  local compiler=$PWD/.cache/horovod/cxx torch
  torch=$("$BIN/python" -c 'import importlib.metadata as m; print(m.version("torch"))') &&
    mkdir -p .cache/horovod &&
    printf '#!/bin/sh\nexec g++ "$@" -std=gnu++17\n' >"$compiler" &&
    chmod +x "$compiler" &&
    PATH=$BIN:$PATH CXX=$compiler CMAKE_POLICY_VERSION_MINIMUM=3.5 MAKEFLAGS=-j$(parallel_compilers) \
      HOROVOD_WITH_PYTORCH=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1 \
      HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_MPI=1 \
      "$BIN/uv" pip install -p "$BIN/python" -c constraints.txt -C "torch=$torch" \
      --no-build-isolation --no-deps horovod &&
    "$BIN/python" -c 'import horovod.torch as hvd; assert hvd.gloo_built(), "Horovod was built without gloo"'
}

parallel_compilers() {
  "$PYTHON" -c 'import os
memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
print(max(1, min(os.cpu_count() or 1, memory // 2**31)))'
}

jars() { "$BIN/python" scripts/fetch_jars.py; }

# librosa compiles its kernels on first use and keeps them: better here than in the first run.
kernels() {
  "$BIN/python" -c "
import numpy as np
from avrec_spark.encoders.audio import describe
describe(np.random.default_rng(0).normal(size=22050).astype('f4'), 22050)"
}

main() {
  [ -x "$BIN/uv" ] || rm -rf "$STAMPS"
  step environment /dev/null -- environment
  step libraries constraints.txt setup.py scripts/requirements.py -- libraries
  step package setup.py pyproject.toml -- package
  # Compiling and downloading do not compete.
  step jars constraints.txt scripts/fetch_jars.py -- jars &
  local fetching=$!
  step horovod constraints.txt -- horovod
  wait $fetching
  step kernels constraints.txt avrec_spark/encoders/audio.py avrec_spark/encoders/descriptors.py -- kernels
}

main
