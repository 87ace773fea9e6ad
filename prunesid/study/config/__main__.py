"""Whether a study's file is valid, with every problem where it is not.

    python -m prunesid.study.config configs/pocket.yaml

`make reproduce` asks first: Snakemake reads the file before any line of the workflow runs, and
ends in a traceback where it cannot.
"""

import sys
from pathlib import Path

from prunesid.study.config.documents import ConfigError
from prunesid.study.config.study import load_study

try:
    load_study(Path(sys.argv[1]))
except ConfigError as error:
    sys.exit(str(error))
