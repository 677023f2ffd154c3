"""Put the Delta Lake JARs where every Spark of this environment finds them: into pyspark's own folder of JARs.

Spark resolves them once, through Ivy; a site without Maven names a folder that holds them in AVREC_JARS_DIR.
"""

import os
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import pyspark
from pyspark.sql import SparkSession

DELTA = version("delta-spark")
JARS = (f"delta-spark_2.13-{DELTA}.jar", f"delta-storage-{DELTA}.jar")


def main() -> None:
    folder = os.environ.get("AVREC_JARS_DIR")
    source = Path(folder) if folder else resolve(Path(".cache/ivy").absolute())
    copy(source, Path(pyspark.__file__).parent / "jars")


def copy(source: Path, target: Path) -> None:
    """Copy both JARs, in place of other versions; Ivy writes the group before their names."""
    found = {name: sorted(source.glob(f"*{name}")) for name in JARS}
    for name, places in found.items():
        if not places:
            sys.exit(f"{source} holds no {name}. Put it there, or unset AVREC_JARS_DIR to download it through Maven.")
    # Unlinked, not overwritten: a Spark that runs meanwhile keeps what it has opened.
    for old in [*target.glob("*delta-spark_*.jar"), *target.glob("*delta-storage-*.jar")]:
        old.unlink()
    for name, places in found.items():
        shutil.copyfile(places[0], target / name)


def resolve(ivy: Path) -> Path:
    """Download through Spark's own package resolution; the session that asks for it is stopped at once."""
    os.environ["PYSPARK_PYTHON"] = sys.executable
    conf = {
        "spark.jars.packages": f"io.delta:delta-spark_2.13:{DELTA}",
        "spark.jars.ivy": str(ivy),
        "spark.ui.enabled": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
    }
    SparkSession.builder.master("local[1]").config(map=conf).getOrCreate().stop()
    return ivy / "jars"


if __name__ == "__main__":
    main()
