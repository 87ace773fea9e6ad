"""The key of Weights & Biases, where a study insists on being online."""

from __future__ import annotations

import netrc
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from prunesid.study.planning.checks.finding import MISSING, OK, Finding

SERVER = "https://api.wandb.ai"


def check_wandb(mode: str, environment: Mapping[str, str], home: Path) -> Iterator[Finding]:
    """`mode` is the study's; all but `online` do without a key. No server is asked."""
    if mode != "online":
        return
    if environment.get("WANDB_API_KEY") or _in_netrc(environment, home):
        yield Finding(OK, "W&B key", "there is one")
    else:
        remedy = "`.venv/bin/wandb login`, or WANDB_API_KEY; or wandb.mode: auto"
        yield Finding(MISSING, "W&B key", "wandb.mode is online, and there is none", remedy)


def _in_netrc(environment: Mapping[str, str], home: Path) -> bool:
    """True if the file that `wandb login` writes knows the server."""
    host = urlsplit(environment.get("WANDB_BASE_URL", SERVER)).hostname or ""
    path = Path(environment.get("NETRC", home / ".netrc"))
    try:
        return netrc.netrc(path).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
