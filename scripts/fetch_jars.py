"""Put the Delta Lake JARs where every Spark of this environment finds them: into pyspark's own folder of JARs.

Spark resolves them once through Ivy; a site without Maven names a folder that holds them in AVREC_JARS_DIR.
"""

import os
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import pyspark
from pyspark.sql import SparkSession

TARGET = Path(pyspark.__file__).parent / "jars"
IVY = Path(".cache/ivy").absolute()


def main() -> None:
    source = Path(os.environ["AVREC_JARS_DIR"]) if "AVREC_JARS_DIR" in os.environ else resolve()
    found = sorted(source.glob("*delta-s*.jar"))
    if len(found) < 2:
        sys.exit(f"{source} lacks delta-spark_2.13 or delta-storage; put both JARs of {version('delta-spark')} there.")
    for jar in found:
        shutil.copy(jar, TARGET)
        print("copied", jar.name)


def resolve() -> Path:
    """Download through Spark's package resolution; the session itself is not needed."""
    os.environ["PYSPARK_PYTHON"] = sys.executable
    builder = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    builder = builder.config("spark.jars.packages", f"io.delta:delta-spark_2.13:{version('delta-spark')}")
    builder.config("spark.jars.ivy", str(IVY)).getOrCreate().stop()
    return IVY / "jars"


if __name__ == "__main__":
    main()
