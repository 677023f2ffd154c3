"""spark-submit jobs/ablation.py --config conf/ENV.yaml [--run-id R] [--set key=value …]"""

import sys

from avrec_spark.pipelines.runner import main

if __name__ == "__main__":
    sys.exit(main("ablation"))
