"""Print what setup.py requires with the extras named on the command line, one requirement a line."""

import runpy
import sys
from unittest import mock

with mock.patch("setuptools.setup") as setup:
    runpy.run_path("setup.py")

said = setup.call_args.kwargs
print("\n".join(said["install_requires"] + [line for extra in sys.argv[1:] for line in said["extras_require"][extra]]))
