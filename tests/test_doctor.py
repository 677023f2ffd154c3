from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

from avrec_spark import doctor

FakeProgram = Callable[..., Path]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeProgram:
    """An empty PATH on a Debian machine; the fixture puts programs on it that print what a test says."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(doctor.platform, "system", lambda: "Linux")

    def put(name: str, prints: str = "", into: Path = folder) -> Path:
        into.mkdir(parents=True, exist_ok=True)
        program = into / name
        program.write_text(f"#!/bin/sh\n/bin/cat >&2 <<'END'\n{prints}\nEND\n")
        program.chmod(0o755)
        return program

    return put


def named(name: str, **options: object) -> doctor.Check:
    return next(check for check in doctor.checks(before_setup=True, **options) if check.name == name)


def test_a_machine_without_java_gets_the_command_that_installs_it(fake: FakeProgram) -> None:
    check = named("JDK 17")
    assert (check.state, check.found) == (doctor.MISSING, "no java on PATH, and no JAVA_HOME")
    assert check.remedy == "sudo apt-get install -y openjdk-17-jdk-headless"


def test_java_11_is_named_and_answered_with_the_install_and_the_choice_of_17(fake: FakeProgram) -> None:
    java = fake("java", 'openjdk version "11.0.24" 2024-07-16')
    check = named("JDK 17")
    assert (check.state, check.found) == (doctor.MISSING, f"{java} is version 11")
    assert check.remedy.startswith("sudo apt-get install -y openjdk-17-jdk-headless; export JAVA_HOME=")


def test_java_8_counts_as_8_though_it_calls_itself_1_8(fake: FakeProgram) -> None:
    java = fake("java", 'java version "1.8.0_401"')
    assert named("JDK 17").found == f"{java} is version 8"


def test_java_17_is_fine_and_21_is_noted(fake: FakeProgram) -> None:
    fake("java", 'openjdk version "17.0.12" 2024-07-16')
    assert named("JDK 17").state == doctor.OK
    fake("java", 'openjdk version "21.0.4" 2024-07-16')
    assert named("JDK 17").state == doctor.NOTE


def test_java_home_goes_before_path_as_it_does_for_spark(
    fake: FakeProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake("java", 'openjdk version "17.0.12"')
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "gone"))
    assert named("JDK 17").found == f"JAVA_HOME is {tmp_path / 'gone'}, which has no bin/java"
    java = fake("java", 'openjdk version "11.0.2"', into=tmp_path / "eleven" / "bin")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "eleven"))
    assert named("JDK 17").found == f"{java} is version 11"


def test_a_machine_without_a_compiler_or_make_gets_the_commands(fake: FakeProgram) -> None:
    assert named("C++ compiler").remedy == "sudo apt-get install -y g++"
    assert named("make").remedy == "sudo apt-get install -y make"
    fake("g++")
    assert named("C++ compiler").state == doctor.OK


def test_a_mac_gets_the_commands_of_homebrew(fake: FakeProgram, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.platform, "system", lambda: "Darwin")
    assert named("C++ compiler").remedy == "brew install gcc"
    assert named("JDK 17").remedy.startswith("brew install openjdk@17; export JAVA_HOME=$(brew --prefix openjdk@17)")
    assert named("Python 3.11", python=(3, 13)).remedy == "brew install python@3.11, then: make setup PYTHON=python3.11"


@pytest.mark.parametrize("version", [(3, 6), (3, 10), (3, 12)])
def test_another_python_is_refused_with_the_command_that_chooses_3_11(
    fake: FakeProgram, version: tuple[int, int]
) -> None:
    check = named("Python 3.11", python=version)
    assert check.state == doctor.MISSING
    assert check.found.startswith(f"{version[0]}.{version[1]} at ")
    assert check.remedy == (
        "sudo apt-get install -y python3.11 python3.11-venv python3.11-dev, then: make setup PYTHON=python3.11"
    )


def test_a_python_that_cannot_make_environments_is_refused(fake: FakeProgram, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "has_module", lambda name: False)
    check = named("Python 3.11", python=(3, 11))
    assert check.state == doctor.MISSING
    assert "python3.11-venv" in check.remedy


def test_set_up_wants_much_disk_space_once_and_little_afterwards(
    fake: FakeProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 5 * 2**30})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: usage)
    check = named("disk space", folder=str(tmp_path))
    assert (check.state, check.found) == (doctor.MISSING, "5 GiB free, 12 needed")
    fake("avrec", into=tmp_path / ".venv" / "bin")
    assert named("disk space", folder=str(tmp_path)).state == doctor.OK


def test_a_folder_without_write_access_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A mode of 555 would not stop root, which tests in containers are.
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    assert doctor.check_writable(str(tmp_path)).remedy == f'sudo chown -R "$USER" "{tmp_path}"'


def test_something_missing_stops_set_up_with_a_table_that_any_terminal_can_show(
    fake: FakeProgram, capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor.main(before_setup=True) == 1
    told = capsys.readouterr().out
    assert "-> sudo apt-get install -y openjdk-17-jdk-headless\n" in told
    assert "Missing: JDK 17, C++ compiler, make" in told
    assert told.isascii()


def test_the_table_shows_each_check_on_a_line_and_the_remedy_under_it() -> None:
    lines = [doctor.Check("make", doctor.OK, "/usr/bin/make"), doctor.Check("JDK 17", doctor.MISSING, "none", "get it")]
    assert doctor.table(lines).splitlines() == [
        "ok       make    /usr/bin/make",
        "MISSING  JDK 17  none",
        "                 -> get it",
    ]


def test_after_set_up_libraries_horovod_and_jars_are_in_the_table() -> None:
    found = {check.name: check.state for check in doctor.checks(before_setup=False)}
    for name in ("pyspark", "torch", "horovod", "Delta JARs", "memory", "cores"):
        assert found[name] in (doctor.OK, doctor.NOTE), name


def test_it_can_be_read_by_a_python_as_old_as_3_6() -> None:
    ast.parse(Path(doctor.__file__).read_text(encoding="utf-8"), feature_version=(3, 6))
