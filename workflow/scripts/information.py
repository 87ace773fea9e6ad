from pathlib import Path

import torch

from prunesid.stages.information import write_information

torch.set_num_threads(snakemake.threads)
features = map(Path, snakemake.input.features)
write_information(
    dict(zip(snakemake.params.benchmarks, features, strict=True)), Path(snakemake.output[0])
)
