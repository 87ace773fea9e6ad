"""What a user is told of a full disk."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator

from prunesid.study.config.study import Study
from prunesid.study.planning.checks.machine import mount_of

_FULL = {errno.ENOSPC, errno.EDQUOT}
# Libraries that are not written in Python have errors of their own.
_SAID = "No space left on device"


def full_disk(error: BaseException, study: Study) -> str | None:
    """Which disk is full and what the study still needs there; None where it is another error."""
    if not any(_is_full(each) for each in _chain(error)):
        return None
    # Here: it takes seconds to import, and errors are rare.
    from prunesid.study.planning.estimate import estimate, size_text

    mount, usage = mount_of(study.results), shutil.disk_usage(study.results)
    need = estimate(study).bytes
    return (
        f"The disk at {mount} is full: {size_text(usage.free)} of {size_text(usage.total)} are "
        f"free, and the study needs about {size_text(need)} more in {study.results}. What is "
        "finished is kept. Make room there, or move the folder to another disk and name it in "
        "`results`; then start the same command again."
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_full(error: BaseException) -> bool:
    return (isinstance(error, OSError) and error.errno in _FULL) or _SAID in str(error)
