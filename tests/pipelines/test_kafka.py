"""The job events on a real broker: topics are taken once, whatever becomes of the job meanwhile."""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyspark
import pytest

from avrec_spark import config, session, tables
from avrec_spark.errors import EXIT_FAILED, SettingsError
from avrec_spark.lakehouse import Lakehouse
from avrec_spark.pipelines import events as job
from tests.pipelines import killing

SPARK = Path(pyspark.__file__).parent
JARS = killing.REPOSITORY / ".cache" / "kafka"
BROKER = {"spark.jars.packages": "org.apache.kafka:kafka_2.13:3.9.1"}
JAVA = ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
LOGIN = 'org.apache.kafka.common.security.plain.PlainLoginModule required username="avrec" password="{0}"{1};'


def resolved(packages: dict[str, str], folder: Path) -> Path:
    """The folder with the packages' JARs; Spark's own resolution brings them the first time."""
    jars = folder / "jars"
    if not list(jars.glob("*kafka*.jar")):
        nothing = folder / "nothing.py"
        folder.mkdir(parents=True, exist_ok=True)
        nothing.touch()
        conf = [f"{key}={value}" for key, value in (packages | {"spark.jars.ivy": str(folder)}).items()]
        submit = [str(SPARK / "bin" / "spark-submit"), *(word for pair in conf for word in ("--conf", pair))]
        try:
            subprocess.run([*submit, str(nothing)], capture_output=True, check=True, timeout=300)
        except subprocess.SubprocessError as error:
            pytest.skip(f"needs {packages['spark.jars.packages']}, which Maven does not bring: {error}")
    return jars


@dataclass(frozen=True)
class Broker:
    """A broker on loopback that asks for a password."""

    folder: Path
    port: int
    password: str
    java: list[str]

    @property
    def environment(self) -> dict[str, str]:
        return {
            "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
            "KAFKA_SASL_MECHANISM": "PLAIN",
            "KAFKA_SASL_JAAS_CONFIG": LOGIN.format(self.password, ""),
        }

    def produce(self, topic: str, *values: str) -> None:
        """Append records; their keys spread them over the partitions."""
        lines = "".join(f"{number}\t{value}\n" for number, value in enumerate(values))
        keys = ("parse.key=true", "key.separator=\t", "null.marker=NULL")
        subprocess.run(
            [
                *(*self.java, "kafka.tools.ConsoleProducer", "--bootstrap-server", f"127.0.0.1:{self.port}"),
                *("--topic", topic, "--producer.config", str(self.folder / "client.properties")),
                *(word for key in keys for word in ("--property", key)),
            ],
            input=lines, text=True, check=True, capture_output=True, timeout=60,
        )  # fmt: skip


@pytest.fixture(scope="module")
def broker(tmp_path_factory) -> Iterator[Broker]:
    folder = tmp_path_factory.mktemp("broker")
    # Spark's resolution leaves Scala out, which Spark has.
    places = [resolved(BROKER, JARS / "broker") / "*", *(SPARK / "jars").glob("scala-*.jar")]
    port, controller = free_ports(2)
    password = secrets.token_hex(8)
    (folder / "server.properties").write_text(
        f"""
        process.roles=broker,controller
        node.id=1
        controller.quorum.voters=1@127.0.0.1:{controller}
        controller.listener.names=CONTROLLER
        listeners=CLIENT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
        listener.security.protocol.map=CLIENT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
        inter.broker.listener.name=CLIENT
        sasl.enabled.mechanisms=PLAIN
        sasl.mechanism.inter.broker.protocol=PLAIN
        listener.name.client.plain.sasl.jaas.config={LOGIN.format(password, f' user_avrec="{password}"')}
        log.dirs={folder / "records"}
        num.partitions=2
        offsets.topic.replication.factor=1
        transaction.state.log.replication.factor=1
        transaction.state.log.min.isr=1
        """
    )
    broker = Broker(folder, port, password, [*JAVA, "-cp", ":".join(map(str, places))])
    properties = {name.removeprefix("KAFKA_"): value for name, value in broker.environment.items()}
    (folder / "client.properties").write_text(
        "".join(f"{name.lower().replace('_', '.')}={value}\n" for name, value in properties.items())
    )
    server = str(folder / "server.properties")
    storage = [*broker.java, "kafka.tools.StorageTool", "format", "-t", "kRaftClusterForTestsA", "-c", server]
    with open(folder / "log", "w") as log:
        subprocess.run(storage, check=True, stdout=log, stderr=log)
        process = subprocess.Popen([*broker.java, "kafka.Kafka", server], stdout=log, stderr=log)
    try:
        wait_for(port, process, folder / "log")
        yield broker
    finally:
        process.kill()
        process.wait()


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 90
    while True:
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-4000:]
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)


def event(number: int, **more: object) -> str:
    """A user's view of an item, each of its own. Those with an even number have an id, too."""
    known = {"who": {"id": f"user{number}"}, "item_id": f"item{number}", "event_type": "view"}
    own = {"event_id": f"e{number}"} if number % 2 == 0 else {}
    return json.dumps(known | own | {"timestamp": 1767225600 + number * 600} | more)


def taking(source: str, folder: Path, environment: dict[str, str]) -> killing.Job:
    """The job that takes a topic's events in small micro-batches."""
    client = resolved(session.KAFKA, JARS / "spark").parent
    settings = [
        f"events.source={source}",
        "events.mode=available-now",
        "events.columns={user_id: who.id}",
        "events.stream.records_per_trigger=8",
        "events.defences.enabled=false",
        f"spark.conf={json.dumps({'spark.jars.ivy': str(client)})}",
    ]
    return killing.Job(folder, settings, environment)


def written(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
def test_a_job_that_is_killed_takes_every_record_of_a_topic_once(broker, spark, tmp_path):
    source = f"kafka://127.0.0.1:{broker.port}/events"
    events = taking(source, tmp_path, broker.environment)
    first = [event(number) for number in range(10)] + [event(10, timestamp="soon"), "no event"]
    broker.produce("events", *first)
    counts = events.run("first")
    assert (counts["rows_out"], counts["quarantined"]) == (10, 2)

    second = [event(number) for number in range(20, 40)] + [
        f"[{event(40)}, {event(41)}]",
        event(42, item_id=None),
        "NULL",
    ]
    broker.produce("events", *second)
    events.kill("before the merge", 1, "second")
    events.kill("after the merge", 1, "second", "events.mode=continuous", "events.stream.trigger_seconds=0.1")
    counts = events.run("second")

    assert (counts["rows_out"], counts["quarantined"]) == (30, 5)
    lakehouse = Lakehouse(spark, str(events.root))
    users = [row["user_id"] for row in lakehouse.read(tables.INTERACTIONS).collect()]
    assert sorted(users) == sorted(f"user{number}" for number in (*range(10), *range(20, 40)))
    refused = lakehouse.read(tables.QUARANTINE).where("run_id = 'second'").collect()
    bad = {first[10]: "bad_timestamp", first[11]: "broken_record"}
    bad |= {second[20]: "broken_record", second[21]: "missing_item", None: "broken_record"}
    assert {row["original"]: row["reason"] for row in refused} == bad
    assert all(row["key"].rsplit("/", 1)[0] == row["source"] for row in refused)
    assert {row["source"].removeprefix(source) for row in refused} <= {"/0", "/1"}
    # Where each record was, and that the checkpoint ends behind the last one.
    places = sorted((row["source"], row["row"]) for row in lakehouse.read(tables.EVENTS).collect())
    ends = events.offsets()["events"]
    assert sum(ends.values()) == len(first) + len(second)
    assert places == [(f"{source}/{part}", offset) for part, end in sorted(ends.items()) for offset in range(end)]
    assert min(ends.values()) > 0
    kept = written(tmp_path)
    assert source.encode() in kept and broker.password.encode() not in kept


@pytest.mark.slow
def test_a_wrong_password_is_told_and_written_nowhere(broker, tmp_path):
    wrong = broker.environment | {"KAFKA_SASL_JAAS_CONFIG": LOGIN.format("wrong-password", "")}
    events = taking(f"kafka://127.0.0.1:{broker.port}/events", tmp_path, wrong)
    assert events.exit_code("r") == EXIT_FAILED
    assert "/events cannot be read: SaslAuthenticationException. Check that" in events.log
    assert b"wrong-password" not in written(tmp_path)


def test_what_cannot_be_done_with_a_topic_is_said_before_spark_starts():
    def check(*overrides: str) -> None:
        job.JOB.check(config.load(overrides=overrides, environment={}))

    check("events.source=kafka://one:9092,two:9092/views,likes", "events.mode=continuous")
    with pytest.raises(SettingsError, match="events.mode=batch reads files"):
        check("events.source=kafka://one:9092/views")
    with pytest.raises(SettingsError, match="kafka://one:9092, which names no topic"):
        check("events.source=kafka://one:9092", "events.mode=continuous")
    with pytest.raises(SettingsError, match=r"kafka://\*\*\*@one:9092/views, which names"):
        check("events.source=kafka://me:secret@one:9092/views", "events.mode=continuous")
    with pytest.raises(SettingsError, match="events.format=csv is for files"):
        check("events.source=kafka://one:9092/views", "events.mode=continuous", "events.format=csv")
