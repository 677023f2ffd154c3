"""Submitted by test_cluster.py: train on two ranks that say in which executor's folder they run."""

import os
import sys
from pathlib import Path

from avrec_spark import config, session
from avrec_spark.training import launchers


def say_where(folder, ranks):
    Path(folder, f"rank{ranks.rank}").write_text(os.getcwd())
    return ranks.mean(float(ranks.rank))


if __name__ == "__main__":
    session.get(config.SparkSettings())
    # The ranks get the function by value: this file is not on their path.
    say_where.__module__ = "__main__"
    print("mean of ranks:", launchers.create("horovod").launch(say_where, sys.argv[1], 2))
