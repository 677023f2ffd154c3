"""What is missing on this machine, and the command that mends it.

Runs before anything is installed and under any Python 3, so that a wrong one is reported instead of failing:
    python3 avrec_spark/doctor.py --before-setup
Afterwards `avrec doctor` shows the same table with what set-up has brought.
"""

import os
import platform
import re
import shutil
import subprocess
import sys

PYTHON = (3, 11)
JAVA = 17
DISK_GIB = 12
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
        check_program("C++ compiler", "g++", "g++", "gcc"),
        check_program("make", "make", "make", "make"),
        check_writable(folder),
    ]
    if before_setup:
        return machine + [check_disk(folder)]
    return machine + installed(folder)


def check_python(version):
    found = "{}.{}".format(*version)
    if tuple(version) == PYTHON:
        return Check("Python 3.11", OK, found)
    return Check(
        "Python 3.11", MISSING, found, install("python3.11 python3.11-venv", "python@3.11", "PYTHON=python3.11")
    )


def check_java():
    wanted = "JDK {}".format(JAVA)
    remedy = install("openjdk-17-jdk-headless", "openjdk@17")
    home = os.environ.get("JAVA_HOME")
    program = os.path.join(home, "bin", "java") if home else shutil.which("java")
    if not program or not os.path.exists(program):
        where = "JAVA_HOME is {}, which has no bin/java".format(home) if home else "no java on PATH"
        return Check(wanted, MISSING, where, remedy)
    version = java_version(program)
    if version == JAVA:
        return Check(wanted, OK, program)
    return Check(
        wanted, MISSING, "{} is version {}".format(program, version or "unknown"), remedy + " and set JAVA_HOME"
    )


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
    return (
        Check(name, OK, path) if path else Check(name, MISSING, "no {} on PATH".format(program), install(debian, brew))
    )


def check_writable(folder):
    if os.access(folder, os.W_OK):
        return Check("write access", OK, folder)
    return Check("write access", MISSING, folder, "sudo chown -R $USER {}".format(folder))


def check_disk(folder):
    free = shutil.disk_usage(folder).free / 2.0**30
    found = "{:.0f} GiB free".format(free)
    if free >= DISK_GIB:
        return Check("disk space", OK, found)
    return Check(
        "disk space",
        MISSING,
        found,
        "free {} GiB: see what is large with  du -xh {} | sort -h | tail".format(DISK_GIB, folder),
    )


def installed(folder):
    """What `make setup` brings; needs the environment's own Python."""
    from importlib.metadata import PackageNotFoundError, version

    lines = []
    for package in ("pyspark", "delta-spark", "pyarrow", "torch", "petastorm", "horovod", "mlflow", "av", "librosa"):
        try:
            lines.append(Check(package, OK, version(package)))
        except PackageNotFoundError:
            lines.append(Check(package, MISSING, "not installed", "make setup"))
    lines.append(check_jars())
    airflow = os.path.join(folder, ".venv-airflow", "bin", "airflow")
    has_airflow = os.path.exists(airflow)
    lines.append(
        Check("Airflow", OK if has_airflow else NOTE, airflow if has_airflow else "not set up", "make airflow")
    )
    slots = os.cpu_count() or 1
    lines.append(
        Check("task slots", OK if slots > 1 else NOTE, "{} cores".format(slots), "Horovod's two ranks share one")
    )
    free = shutil.disk_usage(folder).free / 2.0**30
    lines.append(Check("disk space", OK if free >= 2 else MISSING, "{:.0f} GiB free".format(free), "free 2 GiB"))
    return lines


def check_jars():
    from importlib.util import find_spec

    spark = find_spec("pyspark")
    folder = os.path.join(os.path.dirname(spark.origin), "jars") if spark and spark.origin else ""
    found = [name for name in (os.listdir(folder) if os.path.isdir(folder) else []) if name.find("delta-s") >= 0]
    if len(found) >= 2:
        return Check("Delta JARs", OK, folder)
    return Check(
        "Delta JARs",
        MISSING,
        "not in {}".format(folder or "pyspark"),
        "make setup, or set AVREC_JARS_DIR and make setup",
    )


def install(debian, brew, then=""):
    """The command that installs a system package here."""
    command = "brew install " + brew if platform.system() == "Darwin" else "sudo apt-get install -y " + debian
    return command + (", then  make setup " + then if then else "")


def main(before_setup=False):
    """Print the table; 0 when nothing is missing, else 1."""
    lines = checks(before_setup)
    missing = [line for line in lines if line.state == MISSING]
    if missing or not before_setup:
        width = max(len(line.name) for line in lines)
        for line in lines:
            mark = {OK: "ok     ", MISSING: "MISSING", NOTE: "note   "}[line.state]
            print("{}  {}  {}".format(mark, line.name.ljust(width), line.found))
            if line.state != OK and line.remedy:
                print("{}  {}  → {}".format(" " * 7, " " * width, line.remedy))
    if missing:
        print("\n{} missing: {}.".format(len(missing), ", ".join(line.name for line in missing)))
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(before_setup="--before-setup" in sys.argv[1:]))
