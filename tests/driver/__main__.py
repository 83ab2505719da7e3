"""Run the suite: the folder with PyMongo's source distribution, then names of test files, or none for all."""

import sys
from pathlib import Path

from tests.driver.suite import main

sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
