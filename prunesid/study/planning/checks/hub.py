"""The Hugging Face hub, as a check sees it: the local cache, and a repository's description."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prunesid.study.planning.checks.finding import MISSING, Finding

SECONDS = 5.0
MODEL, DATASET = "model", "dataset"


class NotReachable(Exception):
    """The hub gives no answer; the message says why."""


class NotThere(Exception):
    """The hub has no such repository, or shows it to nobody without a token."""


@dataclass(frozen=True)
class Repository:
    """`files` are sizes in bytes by name (None where the hub does not say).

    gated  whether its files have to be asked for
    open   whether this user's token may read them
    """

    files: Mapping[str, int | None] = field(default_factory=dict)
    gated: bool = False
    open: bool = True

    @property
    def size(self) -> int:
        return sum(size or 0 for size in self.files.values())


class Hub:
    """The hub by `huggingface_hub`; once it could not be reached it is not asked again.

    offline    whether HF_HUB_OFFLINE keeps the libraries from asking
    cache      the folder of downloads
    has_token  whether there is a token to log in with
    """

    def __init__(self) -> None:
        from huggingface_hub import constants, get_token

        self.offline = bool(constants.HF_HUB_OFFLINE)
        self.cache = Path(constants.HF_HUB_CACHE)
        self.has_token = get_token() is not None
        self._unreachable: str | None = None

    def cached(self, name: str, file: str) -> Path | None:
        """A model repository's file in the local cache."""
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(name, file, cache_dir=self.cache)
        return Path(found) if isinstance(found, str) else None

    def has_dataset(self, name: str) -> bool:
        """True if the local cache holds files of a data set."""
        folder = self.cache / f"datasets--{name.replace('/', '--')}" / "snapshots"
        # A snapshot with nothing but the card was only looked at.
        return any(p.is_file() and p.suffix != ".md" for p in folder.rglob("*"))

    def look(self, name: str, kind: str) -> Repository:
        """A repository of a `kind`, MODEL or DATASET. NotReachable or NotThere."""
        from huggingface_hub import HfApi
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

        if self._unreachable is not None:
            raise NotReachable(self._unreachable)
        api = HfApi()
        try:
            ask = api.model_info if kind == MODEL else api.dataset_info
            info = ask(name, timeout=SECONDS, files_metadata=True)
            gated, readable = bool(info.gated), True
            if gated:
                try:
                    api.auth_check(name, repo_type=kind)
                except GatedRepoError:
                    readable = False
        except RepositoryNotFoundError as error:
            raise NotThere(f"the hub shows no {kind} '{name}'") from error
        except Exception as error:  # transports raise their own errors; a check reports them
            reason = next(iter(str(error).splitlines()), "") or type(error).__name__
            self._unreachable = reason
            raise NotReachable(reason) from error
        sizes = {file.rfilename: file.size for file in info.siblings or ()}
        return Repository(sizes, gated, readable)


def downloadable(
    hub: Hub, what: str, name: str, kind: str, here: str, expected: float = 0.0
) -> Repository | Finding:
    """The hub's description of a repository that this user can download; else why it is MISSING.

    here      what the local cache has of it
    expected  the bytes that will have to be downloaded where there is a network
    """
    model = kind == MODEL
    command = f"hf download {'' if model else '--repo-type dataset '}{name}"
    if hub.offline:
        why = "keeps it from being downloaded" if model else "is set"
        detail = f"{name}: {here}, and HF_HUB_OFFLINE {why}"
        remedy = f"`HF_HUB_OFFLINE=0 {command}` where there is a network"
        return Finding(MISSING, what, detail, remedy, expected)
    try:
        repository = hub.look(name, kind)
    except NotReachable as error:
        detail = f"{name}: {here}, and the hub is not reachable ({error})"
        remedy = f"`{command}` where there is a network, or copy it into {hub.cache}"
        return Finding(MISSING, what, detail, remedy, expected)
    except NotThere as error:
        if model:
            remedy = "check the name; a private repository needs `hf auth login`"
            return Finding(MISSING, what, f"{name}: {error}", remedy)
        remedy = "a private data set needs `hf auth login`; else report it"
        return Finding(MISSING, what, str(error), remedy)
    if not repository.gated or repository.open:
        return repository
    page, login = "data set's page", ", then `hf auth login`"
    if model:
        page = "model's page"
        login = "" if hub.has_token else ", then log in with `hf auth login` (there is no token)"
    detail = f"{name} is gated, and this user has no access"
    return Finding(MISSING, what, detail, f"ask for it on the {page} on the hub{login}")
