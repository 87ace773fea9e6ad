"""Snakemake's looks for jobs that can start, one at a time."""

from __future__ import annotations

import threading
from typing import Any


def look_once(scheduler: Any) -> None:
    """Let Snakemake's class `JobScheduler` plan at most one look for jobs at a time.

    After every look Snakemake 9.27.1 plans another one, for its limit of jobs per second, and each
    job that ends adds a look. So after 100 jobs it looks 100 times a second, which took a third of
    a core in the first quarter of an hour of the default study.
    """

    def plan(self: Any, delay: float) -> None:
        def look() -> None:
            self.look_planned = False
            self._open_jobs.release()

        if not vars(self).get("look_planned"):
            self.look_planned = True
            threading.Timer(delay, look).start()

    scheduler._schedule_reevalutation = plan
