"""Put an export on the Hugging Face Hub and take one from there. The export folder is the repository.

It goes through huggingface_hub's ``ModelHubMixin``. Differs: the backbones do not inherit from it, because that would import
the client with every network; what does is the export folder, whose own config and model card are kept.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssvid.backbones import Backbone
from ssvid.errors import CheckpointError
from ssvid.files import takes_paths
from ssvid.weights.checkpoints import weights_sha256
from ssvid.weights.hub import EXPORT_FILES, HUB, hub_client, hub_refusal
from ssvid.weights.loading import CONFIG, load_backbone, read_source


@takes_paths("export_folder")
def push_to_hub(
    export_folder: str | Path,
    repo_id: str,
    *,
    private: bool = True,
    revision: str | None = None,
    commit_message: str | None = None,
    token: str | None = None,
) -> str:
    """Upload an exported folder and return the address that ``load_backbone`` takes: ``hf://owner/name@commit``.

    Args:
        export_folder: what ``ssvid export`` wrote. It is checked first; of its files only those of an export are sent.
        repo_id: ``owner/name``; made where it does not exist.
        private: whether a new repository is seen by its owner alone; an existing one stays as it is.
        revision: branch to commit to; the default branch where None.
        token: of the account; the one that is logged in where None.

    Raises:
        CheckpointError: no whole export, the extra ``hub`` is missing, or the Hub refuses.
    """
    folder = Path(export_folder)
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{folder} is not an exported folder. Make one first: ssvid export runs/mine {folder}")
    source = read_source(folder)  # refuses a damaged one
    client = hub_client()
    message = commit_message or f"{source.name}, weights {weights_sha256(source.state)[:12]}"
    try:
        commit = _export_class()(folder).push_to_hub(
            repo_id, commit_message=message, private=private, token=token, branch=revision
        )
    except (client.errors.HfHubHTTPError, client.errors.HFValidationError, OSError) as error:
        raise CheckpointError(hub_refusal(f"{folder} cannot be uploaded to {repo_id}", error)) from error
    return f"{HUB}{repo_id}@{commit.oid}"


def from_pretrained(repo_id: str, *, revision: str | None = None, options: Mapping[str, Any] | None = None) -> Backbone:
    """The backbone of an export on the Hub: ``load_backbone("hf://owner/name@revision")``."""
    return load_backbone(f"{HUB}{repo_id}" + (f"@{revision}" if revision else ""), options=options)


def _export_class() -> Any:
    """An exported folder as the client's mixin sees it; made here, so that the client is imported only when asked for."""

    class ExportFolder(hub_client().ModelHubMixin, library_name="ssvid"):  # type: ignore[misc, call-arg]
        def __init__(self, folder: Path) -> None:
            self.folder = folder

        def _save_pretrained(self, save_directory: Path) -> None:
            """Exactly the files of an export: whatever else lies in the folder stays here."""
            for name in EXPORT_FILES:
                if (self.folder / name).is_file():
                    shutil.copyfile(self.folder / name, save_directory / name)

    return ExportFolder
