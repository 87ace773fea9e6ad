from pathlib import Path

import torch

from prunesid.study.stages.information import write_information
from prunesid.study.stages.shard import by_benchmark

torch.set_num_threads(snakemake.threads)
write_information(
    by_benchmark(snakemake.params.benchmarks, snakemake.input.features), Path(snakemake.output[0])
)
