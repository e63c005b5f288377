"""The Hugging Face hub, through its own client."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, cast

from sie_server.adapters.base import LoadError
from sie_server.core.lifecycle import ErrorClass
from sie_server.weights.download import Sink
from sie_server.weights.snapshot import UNPINNED, File, Manifest, Snapshot

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

NOT_ALLOWED = (401, 403)
LISTING_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Hub:
    """The hub at `endpoint`, asked with `token`; None is what the client finds in its own settings."""

    token: str | None = field(default=None, repr=False)
    endpoint: str | None = None
    kind: str = "hub"

    def find(self, snapshot: Snapshot) -> Manifest:
        """The files that are needed of a snapshot.

        Raises:
            LoadError: GATED, NOT_FOUND, NETWORK, or DEPENDENCY when there are pickles only.
        """
        from huggingface_hub import HfApi  # noqa: PLC0415 - only downloads pay for it

        with _translated(snapshot):
            api = HfApi(endpoint=self.endpoint, token=self.token)
            info = api.model_info(
                snapshot.repo, revision=snapshot.revision, files_metadata=True, timeout=LISTING_TIMEOUT_S
            )
        found = {sibling.rfilename: sibling for sibling in info.siblings or ()}
        chosen = snapshot.choose(found)
        return Manifest(snapshot.repo, snapshot.revision, info.sha, tuple(_file(found[path]) for path in chosen))

    def fetch(self, snapshot: Snapshot, manifest: Manifest, file: File, sink: Sink) -> None:
        """Append the rest of a file.

        Raises:
            LoadError: GATED, NOT_FOUND, NETWORK.
        """
        from huggingface_hub import hf_hub_url  # noqa: PLC0415 - only downloads pay for it
        from huggingface_hub.file_download import http_get  # noqa: PLC0415 - the same
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # noqa: PLC0415 - the same

        revision = manifest.commit or snapshot.revision
        with _translated(snapshot):
            url = hf_hub_url(snapshot.repo, file.path, revision=revision, endpoint=self.endpoint)
            http_get(
                url,
                cast("BinaryIO", sink),
                resume_size=sink.tell(),
                headers=build_hf_headers(token=self.token),
                expected_size=file.size,
            )


def _file(sibling: "RepoSibling") -> File:
    if sibling.size is None or (sibling.lfs is None and sibling.blob_id is None):
        message = f"the hub does not say how large '{sibling.rfilename}' is, so it cannot be checked"
        raise LoadError(ErrorClass.NETWORK, message)
    digest = f"sha256:{sibling.lfs.sha256}" if sibling.lfs is not None else f"git-sha1:{sibling.blob_id}"
    return File(sibling.rfilename, sibling.size, digest)


@contextlib.contextmanager
def _translated(snapshot: Snapshot) -> Iterator[None]:
    """Errors of the client as refusals that say what to do."""
    from huggingface_hub import errors  # noqa: PLC0415 - only downloads pay for it

    try:
        yield
    except errors.GatedRepoError as error:
        message = f"'{snapshot}' is gated: accept its licence on the hub and give the worker HF_TOKEN"
        raise LoadError(ErrorClass.GATED, message) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.EntryNotFoundError) as error:
        pinned = "" if snapshot.revision == UNPINNED else f" at revision '{snapshot.revision}'"
        message = f"the hub has no '{snapshot.repo}'{pinned}, or it is private and the worker has no HF_TOKEN for it"
        raise LoadError(ErrorClass.NOT_FOUND, message) from error
    except errors.HfHubHTTPError as error:
        if error.response is not None and error.response.status_code in NOT_ALLOWED:
            message = f"the hub refuses '{snapshot}' to this worker: check its HF_TOKEN and what that may read"
            raise LoadError(ErrorClass.GATED, message) from error
        raise _unreachable(snapshot, error) from error
    except (errors.OfflineModeIsEnabled, OSError) as error:
        raise _unreachable(snapshot, error) from error
    except errors.HTTPError as error:  # type: ignore[attr-defined]  # of the HTTP library that this version speaks
        raise _unreachable(snapshot, error) from error


def _unreachable(snapshot: Snapshot, error: Exception) -> LoadError:
    return LoadError(
        ErrorClass.NETWORK,
        f"'{snapshot}' is in no cache and cannot be fetched from the hub ({type(error).__name__}); connect the worker "
        "to it, or set SIE_CLUSTER_CACHE to where the model is, or weights_path in the catalogue",
    )
