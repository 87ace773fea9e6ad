from pathlib import Path

import torch

from prunesid.stages.information import write_information

torch.set_num_threads(snakemake.threads)
write_information(Path(snakemake.input.features), Path(snakemake.output[0]))
