"""Whether a study's file is valid, with every problem where it is not.

    python -m prunesid.study.config configs/study.yaml

`make reproduce` asks first: Snakemake reads the file before any line of the workflow runs, and
ends in a traceback where it cannot.
"""

import argparse
import sys
from pathlib import Path

from prunesid.study.config.chapters import load_whole
from prunesid.study.config.documents import ConfigError

parser = argparse.ArgumentParser(description="Whether a study's file is valid.")
parser.add_argument("study", type=Path, help="a study's YAML file")
try:
    load_whole(parser.parse_args().study)
except ConfigError as error:
    sys.exit(str(error))
