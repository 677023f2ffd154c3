"""GPU scheduling without a GPU: nvidia-smi invents the cards, discover_gpus.sh, gpu.conf and Spark are the real ones.

local[…] schedules no resources; local-cluster starts a master, a worker and its executors for one application.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyspark
import pytest

from avrec_spark import device
from avrec_spark.errors import SettingsError

REPOSITORY = Path(__file__).resolve().parents[2]
DISCOVER = REPOSITORY / "conf" / "spark" / "discover_gpus.sh"
SPARK = Path(pyspark.__file__).parent
INSTANCES = ["MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f", "MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb"]
# What a test machine can bear; everything about GPUs, cores and tasks stays as gpu.conf says.
SMALL = {
    "spark.executor.memory": "512m",
    "spark.executor.memoryOverhead": "0",
    "spark.driver.memory": "512m",
    "spark.task.maxFailures": "1",
    "spark.ui.enabled": "false",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    "spark.executor.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
}


@pytest.fixture
def machine(tmp_path):
    """Makes the environment of a machine whose nvidia-smi lists these cards: index to the UUIDs of its instances."""

    def with_cards(cards: dict[int, list[str] | None], **variables: str) -> dict[str, str]:
        query, listing = [], []
        for index, instances in cards.items():
            query.append(f"{index}, GPU-{index}, {'Disabled' if instances is None else 'Enabled'}")
            listing.append(f"GPU {index}: NVIDIA A100-SXM4-40GB (UUID: GPU-{index})")
            listing += [f"  MIG 3g.20gb     Device  {n}: (UUID: {uuid})" for n, uuid in enumerate(instances or ())]
        answers = {"-L)": listing, "--query-gpu=index,uuid,mig.mode.current)": query}
        cases = "\n".join(f"{option} cat <<'END'\n{chr(10).join(lines)}\nEND\n;;" for option, lines in answers.items())
        program = tmp_path / "bin" / "nvidia-smi"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\ncase "$1" in\n{cases}\n*) echo "unknown option $1"; exit 2;;\nesac\n')
        program.chmod(0o755)
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("CUDA_", "PYSPARK_GATEWAY"))}
        return clean | {"PATH": f"{program.parent}:{os.environ['PATH']}"} | variables

    return with_cards


def discover(environment):
    return subprocess.run([DISCOVER], env=environment, capture_output=True, text=True, timeout=30, check=False)


def addresses(environment):
    done = discover(environment)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["name"] == "gpu"
    return said["addresses"]


def test_whole_cards_are_known_by_their_index(machine):
    assert addresses(machine({0: None, 1: None})) == ["0", "1"]


def test_of_a_divided_card_the_instances_are_listed(machine):
    assert addresses(machine({0: INSTANCES})) == INSTANCES


def test_beside_a_divided_card_a_whole_one_is_known_by_its_uuid(machine):
    assert addresses(machine({0: None, 1: INSTANCES[:1], 2: []})) == ["GPU-0", INSTANCES[0]]


def test_only_cards_that_cuda_may_see_are_listed(machine):
    assert addresses(machine({0: None, 1: None, 2: None, 3: None}, CUDA_VISIBLE_DEVICES="2,3")) == ["2", "3"]


@pytest.mark.parametrize(
    ("cards", "variables", "word"),
    [
        ({}, {}, "lists no GPU"),
        ({0: []}, {}, "no card has an instance"),
        ({0: None}, {"CUDA_VISIBLE_DEVICES": "-1"}, "hides every GPU"),
    ],
)
def test_a_machine_without_a_usable_gpu_is_told_so(machine, cards, variables, word):
    done = discover(machine(cards, **variables))
    assert (done.returncode, done.stdout) == (1, "")
    assert word in done.stderr


def test_a_machine_without_a_driver_is_told_so(tmp_path):
    (tmp_path / "sh").symlink_to("/bin/sh")
    done = discover({"PATH": str(tmp_path)})
    assert (done.returncode, done.stdout) == (1, "")
    assert "nvidia-smi is not on PATH" in done.stderr


def test_a_broken_driver_is_quoted(machine, tmp_path):
    environment = machine({0: None})
    (tmp_path / "bin" / "nvidia-smi").write_text("#!/bin/sh\necho Driver/library version mismatch\nexit 18\n")
    done = discover(environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Driver/library version mismatch" in done.stderr


def test_outside_a_task_the_device_is_the_cpu():
    assert device.of_task() == "cpu"


def test_an_index_counts_cards_as_nvidia_smi_does():
    environment = {}
    assert device.of_address("3", environment) == "cuda:3"
    assert environment == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


@pytest.mark.parametrize(
    ("address", "visible", "expected"),
    [("3", "2,3", "cuda:1"), ("1", "11, 1", "cuda:1"), (INSTANCES[1], ",".join(INSTANCES), "cuda:1"),
     ("GPU-8932f937-d72c-4106", "GPU-1f,GPU-8932f937", "cuda:1")],
)  # fmt: skip
def test_where_cuda_counts_anew_the_device_is_a_position(address, visible, expected):
    assert device.of_address(address, {"CUDA_VISIBLE_DEVICES": visible}) == expected


def test_a_process_shows_cuda_its_one_instance():
    environment = {}
    assert [device.of_address(INSTANCES[1], environment) for _ in range(2)] == ["cuda:0", "cuda:0"]
    assert environment == {"CUDA_VISIBLE_DEVICES": INSTANCES[1]}
    with pytest.raises(SettingsError, match="gave the GPU MIG-c6.* sees only .*MIG-cb.*resource.gpu.amount=1"):
        device.of_address(INSTANCES[0], environment)


@pytest.mark.parametrize("visible", ["", "-1", "0,1"])
def test_a_hidden_card_is_refused(visible):
    with pytest.raises(SettingsError, match="gave the GPU 3"):
        device.of_address("3", {"CUDA_VISIBLE_DEVICES": visible})


@pytest.fixture
def submit(tmp_path):
    """Runs an application with gpu.conf on one worker and gives what its tasks held: `together` can run at once."""

    def run(environment, cards, together, cores, **changes):
        folder = tmp_path / "held"
        folder.mkdir()
        # The worker of a local-cluster keeps what its executors wrote in Spark's own folder, so give it another.
        home = tmp_path / "spark"
        home.mkdir()
        for part in ("bin", "jars"):
            (home / part).symlink_to(SPARK / part)
        conf = SMALL | {
            "spark.worker.resource.gpu.amount": str(cards),
            "spark.worker.resource.gpu.discoveryScript": str(DISCOVER),
            **{key.replace("_", "."): value for key, value in changes.items()},
        }
        command = [home / "bin" / "spark-submit", "--master", f"local-cluster[1,{cores},1024]"]
        command += ["--properties-file", REPOSITORY / "conf" / "spark" / "gpu.conf"]
        command += [word for key, value in conf.items() for word in ("--conf", f"{key}={value}")]
        command += [REPOSITORY / "tests" / "integration" / "which_gpus_tasks_hold.py", folder, together, 2 * together]
        environment = environment | {
            "SPARK_HOME": str(home),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "PYSPARK_PYTHON": sys.executable,
            "PYSPARK_DRIVER_PYTHON": sys.executable,
        }
        done = subprocess.run(
            [str(word) for word in command],
            cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=150, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-4000:]
        held = json.loads((folder / "held.json").read_text())
        assert len(held) == 2 * together
        return held

    return run


def at_once(held):
    """How many tasks ran at a time, at most, in all and on each address."""
    total, most = Counter(), Counter()
    moments = [(task["start"], 1, task) for task in held] + [(task["end"], -1, task) for task in held]
    for _, change, task in sorted(moments, key=lambda moment: moment[:2]):
        for key in ("all", *task["addresses"]):
            total[key] += change
            most[key] = max(most[key], total[key])
    return most


def test_by_gpu_conf_four_tasks_share_the_gpu_of_their_executor(machine, submit):
    held = submit(machine({0: INSTANCES}), cards=2, together=8, cores=8)
    assert at_once(held) == {"all": 8, INSTANCES[0]: 4, INSTANCES[1]: 4}
    # Every process shows CUDA the instance of its executor only.
    assert {task["device"] for task in held} == {"cuda:0"}


def test_two_tasks_that_overlap_never_share_a_gpu_when_each_takes_a_whole_one(machine, submit):
    held = submit(
        machine({2: None, 3: None, 5: None}), cards=3, together=3, cores=4,
        spark_executor_resource_gpu_amount="3", spark_task_resource_gpu_amount="1",
    )  # fmt: skip
    # There are four cores: it is the GPUs that limit how many run.
    assert at_once(held) == {"all": 3, "2": 1, "3": 1, "5": 1}
    assert all(task["device"] == f"cuda:{task['addresses'][0]}" for task in held)


def test_two_tasks_share_a_gpu_when_each_takes_half_of_one(machine, submit):
    held = submit(
        machine({2: None, 5: None}), cards=2, together=4, cores=6,
        spark_executor_cores="6", spark_executor_resource_gpu_amount="2", spark_task_resource_gpu_amount="0.5",
    )  # fmt: skip
    assert at_once(held) == {"all": 4, "2": 2, "5": 2}
