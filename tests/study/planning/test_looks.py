"""Snakemake looks for jobs once a second, however many have ended."""

import subprocess
import sys

WORKFLOW = """
import atexit
from snakemake.scheduling.job_scheduler import JobScheduler
from prunesid.study.planning.looks import look_once

if {once}:
    look_once(JobScheduler)
looks, select = [], JobScheduler.job_selector

def counted(self, jobs):
    looks.append(len(jobs))
    return select(self, jobs)

JobScheduler.job_selector = counted
atexit.register(lambda: print("looks", len(looks)))

rule all:
    input: expand("made/{{n}}", n=range(20)), "slow", "wide"

rule slow:
    output: touch("slow")
    priority: 2
    shell: "sleep 8"

rule one:
    output: touch("made/{{n}}")
    priority: 1

rule wide:  # can start all the time, but for the cores
    output: touch("wide")
    threads: 2
"""


def looks(folder, once):
    folder.mkdir()
    (folder / "Snakefile").write_text(WORKFLOW.format(once=once))
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--workflow-profile", "none"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert "23 of 23 steps" in done.stderr
    return int(done.stdout.split("looks")[1])


def test_looks_do_not_add_up(tmp_path):
    assert looks(tmp_path / "ours", True) < 0.6 * looks(tmp_path / "theirs", False)
