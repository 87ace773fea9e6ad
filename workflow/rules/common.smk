import json
import os
from functools import cache
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.io import sourcecache_entry
from snakemake.logging import logger

from prunesid.study.layout import Layout
from prunesid.study.provenance.store import Store
from prunesid.study.planning.checks.start import refuse_unready
from prunesid.core.files import source_files, sweep, write_changed
from prunesid.pocket.benchmarks import BENCHMARKS as RENDERED
from prunesid.study.report.closing import closing
from prunesid.study.report.places import PICTURES, unbraced
from prunesid.study.report.places import shelf as place_and_title
from prunesid.study.provenance.checksums import Checksums
from prunesid.study.provenance.code import stage_files
from prunesid.study.provenance.seals import drop_damaged_files
from prunesid.study.provenance.tables import drop_damaged
from prunesid.study.provenance.contents import model_path
from prunesid.study.clone import in_clone
from prunesid.study.config.study import parse_study, study_document
from prunesid.study.config.documents import ConfigError
from prunesid.study.config.plugins import files_of
from prunesid.study.stages.shard import shards

# Benchmarks, ablations, plug-ins and rules are looked up beside the study's own file first. A module
# may get its configuration without a file; its paths then start at the working directory.
STUDY_FOLDER = (
    Path(workflow.configfiles[-1]).resolve().parent
    if workflow.configfiles
    else Path.cwd()
)
# What the workflow itself adds to the configuration: a chapter's folder, and the benchmarks whose images it renders.
# The scripts read it, too. It is no parameter of a rule, so that moving a project reruns nothing.
given_place = None if workflow.modifier.is_main_snakefile() else config.get("place")
PLACE = given_place or {
    "folder": str(STUDY_FOLDER),
    "renders": list(RENDERED),
    "chapter": False,
}
STUDY_FOLDER = Path(PLACE["folder"])
# The study of a chapter has already been read, with those of the other chapters.
STUDY = PLACE.get("study")
try:
    given = {name: value for name, value in config.items() if name != "place"}
    if workflow.configfiles and workflow.modifier.is_main_snakefile():
        # Read again: Snakemake's `config` has neither lines nor the numbers and words of YAML 1.2.
        given = study_document(
            [Path(path) for path in workflow.configfiles],
            workflow.config_settings.config,
        )
        config.clear()
        config.update(given.value)
    STUDY = STUDY or parse_study(given, folder=STUDY_FOLDER)
    refuse_unready(STUDY)
except ConfigError as error:
    # Exit without Snakemake's mention of a line of this file: the error is in the study's file.
    raise SystemExit(str(error)) from None

# Whether results lie in a storage, from which a job gets copies of its own inputs only. Snakemake does not know the
# files of the store beforehand, so each rule that fills it declares a folder instead.
STAGED = workflow.storage_settings.default_storage_provider is not None
if STAGED and STUDY.results.is_absolute():
    raise WorkflowError(
        f"results: {STUDY.results} cannot be staged; name a folder below --default-storage-prefix, "
        "such as results"
    )
config["place"] = {
    **{name: value for name, value in PLACE.items() if name != "study"},
    "staged": STAGED,
}
STUDIES = [STUDY]
# A study of one model has no page on whether findings travel.
TRAVELED = None
LAYOUT = Layout.of(STUDY)
# The model's folder, for rules of one's own.
MODEL = LAYOUT.model

TARGETS = []
# Each benchmark in parts by image, "1-of-4"; every part has features, selections and answers of its own.
SHARDS = [str(shard) for shard in shards(STUDY.shards)]

# lmms-eval copies each benchmark into this cache. It lies in the results, so that it is deleted with them.
os.environ.setdefault("HF_DATASETS_CACHE", str(LAYOUT.cache.resolve()))
os.environ.setdefault("LOGURU_LEVEL", "WARNING")


wildcard_constraints:
    benchmark="|".join(b.name for b in STUDY.encoded),
    ablation="|".join(a.name for a in STUDY.ablations),
    shard=r"\d+-of-\d+",


def storage_of(path):
    """The object by which Snakemake stages a file or folder."""
    return workflow.modifier.path_modifier.apply_default_storage(str(path)).flags[
        "storage_object"
    ]


def seen(path):
    """Where a job sees a file or folder of the results: there, or in the copy of what is staged."""
    return storage_of(path).local_path() if STAGED else path


def filled(outputs, **names):
    """The files of a rule's output for these names of its wildcards."""
    if STAGED:
        # The rule's output names the local copy, whose path takes no wildcards; use the path in the results.
        each = [outputs] if isinstance(outputs, str) else outputs
        outputs = [os.path.relpath(path, seen(os.curdir)) for path in each]
    return expand(outputs, **names)


def parts_of(output, benchmarks, parts=SHARDS):
    """The files that a rule leaves of all parts of benchmarks, benchmark by benchmark."""
    return filled(output, benchmark=[b.name for b in benchmarks], shard=parts)


def unstaged(path):
    """A file that every machine has or writes, as one of the workflow's own.

    As a `local` one it would keep the jobs that read it on the machine of the call.
    """
    return sourcecache_entry(str(path), str(path)) if STAGED else path


def here(paths):
    """Paths in the clone from the working directory, so that a project can move as a whole."""
    return [unstaged(os.path.relpath(path)) for path in paths]


def stored(table):
    """Where results are staged, the folder of the entries that a table names, which lies beside it."""
    return {"store": update(directory(table.with_suffix("")))} if STAGED else {}


def entries(tables):
    """The folders of the entries that tables name, for who reads them; none where the store is shared."""
    return [Path(table).with_suffix("") for table in tables] if STAGED else []


def earlier(table):
    """An input function: what earlier runs left in a job's folder of entries, to be fetched before it adds to them.

    Without any, a file of the clone stands for them, since a job with other inputs is another job to Snakemake.
    """

    def left(wildcards):
        if not STAGED:
            return []
        # This setting is known only once jobs are planned, and is missing if no job is to run.
        if not getattr(workflow.execution_settings, "keep_incomplete", True):
            raise WorkflowError(
                "results are staged: add --keep-incomplete; when a job fails, Snakemake would delete the arms "
                "that earlier runs left of it (docs/cluster.md)"
            )
        folder = str(table.with_suffix("")).format(**wildcards)
        kept_in = storage_of(folder)
        if kept_in.exists():
            return ancient(before_update(folder))
        return sourcecache_entry(os.path.relpath(in_clone("Snakefile")), kept_in.query)

    return left


def code(stage):
    """An input function: the files that a stage's results depend on; an edit reruns, a touch does not."""

    @cache
    def files(name, ablation):
        arms = STUDY.arms_of(name) if name else ()
        if ablation and stage == "measure":
            arms = STUDY.ablation(ablation).clocked_arms
        return here(stage_files(stage, arms, STUDY.model).values())

    return lambda wildcards: files(
        wildcards.get("benchmark"), wildcards.get("ablation")
    )


def asked(stage, what):
    """An input function: a file of `what(wildcards)`, as JSON, all that is asked of a job beside its other inputs.

    It is written when that changes. So results that were copied, with or without Snakemake's records, go on.
    """

    def written(wildcards):
        of = [
            wildcards[name]
            for name in ("benchmark", "ablation", "task")
            if name in wildcards.keys()
        ]
        path = LAYOUT.asked(stage, *of)
        write_changed(path, json.dumps(what(wildcards), indent=1) + "\n")
        return unstaged(path)

    return written


def shelf(what, part=None):
    """Where a report shows something: in a study of several models each has a shelf of its own."""
    if PLACE["chapter"]:
        title = unbraced(STUDY.title.removeprefix("PruneSID on "))
        return {"category": title, "subcategory": part or what}
    return {"category": what, **({"subcategory": part} if part else {})}


def plugin_sources():
    """Files of the study's plug-ins, for what may be drawn by one of them."""
    return here(path for plugin in STUDY.plugins for path in files_of(plugin))


def paper(*names):
    """Files with the paper's own numbers."""
    return here(in_clone("configs", "paper", name) for name in names)


def own_rules():
    """Rules that lie beside the study. A project that uses this one as a module has its own."""
    if not (PLACE["chapter"] or workflow.modifier.is_main_snakefile()):
        return []
    return sorted(map(str, (STUDY_FOLDER / "rules").glob("*.smk")))


def weights():
    """The model's files, where it is a local folder."""
    return here(sorted(Path(model_path(STUDY.model)).glob("*.safetensors")))


def task_data(wildcards):
    """The parquet file of a benchmark that we render; nothing for those from the hub."""
    task = STUDY.benchmark(wildcards.benchmark).task
    return LAYOUT.data(task) if task in RENDERED else []


@cache
def job_needs():
    """What the jobs of each stage take; imports take a second, which only jobs are worth."""
    from prunesid.study.planning.resources import job_needs

    return job_needs(STUDY)


def resources_of(stage, like=None):
    """The resources of a stage's jobs; more of them when a job is tried again.

    like  the stage of the estimate, if it is another. Of what an arm keeps, features tell the size.
    """

    def needs(wildcards):
        of = wildcards.get("benchmark") or wildcards.get("ablation") or "all images"
        return job_needs()[like or stage, of]

    def memory(wildcards, input, attempt):
        kept = int(input.size_mb) // 4 if stage in ("encode", "select", "answer") else 0
        return attempt * (needs(wildcards).memory_mb + kept)

    return {
        "mem_mb": memory,
        "runtime": lambda wildcards, attempt: attempt * needs(wildcards).minutes,
        "gpu": lambda wildcards: needs(wildcards).gpus,
    }


def model_threads():
    # One thread per job, several benchmarks side by side: faster on a CPU than threads inside a
    # small model, and the same numbers on every machine.
    return 1


def text_tower():
    """CLIP's text tower that the study names, None without one."""
    return dict(STUDY.model_options).get("text_tower")
