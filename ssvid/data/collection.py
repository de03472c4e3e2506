"""The videos of a recipe: its table, and which of its rows are trained on and which are held out."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from ssvid.data.config import DataConfig, OutOfDomainConfig
from ssvid.data.contents import Contents
from ssvid.data.index.building import build_manifest
from ssvid.data.index.flow import as_flow
from ssvid.data.manifest import Manifest
from ssvid.data.readers import Listing, OfficialSplit, list_videos
from ssvid.data.readers.shelf import check_official_unused
from ssvid.errors import DataError, RecipeError, name_some
from ssvid.progress import Say, files_every_tenth
from ssvid.types import FLOW

# "unused" clips of an official split may come from the footage of its test clips.
NEVER_TRAINED = ("test", "unused")


def load_manifest(data: DataConfig, say: Say | None = None, *, group: str = "data") -> Manifest:
    """The table of videos that a recipe's ``data`` group names; new files are scanned.

    With ``data.modality=flow`` its rows are read as flow.

    group: where in the recipe the values stand, for error texts.

    Raises:
        DataError: no such folder, no videos, a bad line, or flow that was not measured.
    """
    manifest = _frames_manifest(data, say, group)
    return as_flow(manifest, data.flow) if data.modality == FLOW else manifest


def _frames_manifest(data: DataConfig, say: Say | None, group: str) -> Manifest:
    root = Path(data.root)
    if not root.is_dir():
        kind = "a file" if root.exists() else "nothing"
        raise DataError(
            f"{group}.root ({data.root}) must be a folder of videos, but there is {kind}. Set {group}.root=FOLDER."
        )
    if data.name == "manifest":
        check_official_unused(data.name, _official(data))
        manifest = Manifest.load(Path(data.list) if data.list else root / "manifest.csv", root)
        manifest.check_files()
        return manifest
    split_folders = [name for name in ("train", "val", "test") if (root / name).is_dir()]
    if say and group == "data" and data.name == "folder" and "test" in split_folders:
        say(
            f"note: {root} has folders {', '.join(split_folders)}; data.name=class_folder would leave test out of training"
        )
    listing = listing_of(data).at_rate(data.fps)
    if say:
        for note in listing.notes():
            say(f"note: {note}")
    if say and listing.missing:
        say(f"note: {len(listing.missing)} listed videos are missing, as data.allow_missing allows")
    progress = files_every_tenth(say, "scanning videos") if say else None
    return build_manifest(
        root,
        listing,
        workers=data.index_workers,
        timeout_seconds=data.index_timeout_seconds,
        progress=progress,
        gray_range=data.gray_range,
    )


def listing_of(data: DataConfig) -> Listing:
    """The videos that a recipe's ``data`` group names, by their names alone; for all but ``manifest``."""
    return list_videos(data.name, data.root, data.list or None, official=_official(data))


def _official(data: DataConfig) -> OfficialSplit:
    return OfficialSplit(data.fold, data.annotations, data.allow_missing)


def split_rows(manifest: Manifest, data: DataConfig, seed: int) -> tuple[Manifest, Manifest]:
    """Rows to train on and rows to measure the pretext metric on. Rows of split ``test`` and ``unused`` are in neither.

    A split named ``val`` in the manifest is the validation set; otherwise ``data.val_fraction`` of the rows is held out.
    """
    if data.split:
        chosen = manifest.select(data.split, readable=False)
    else:
        chosen = manifest.with_rows(row for row in manifest.rows if row.split not in NEVER_TRAINED)
    if not data.split and "val" in manifest.splits():
        held_out = [row for row in chosen.rows if row.split == "val"]
        return chosen.with_rows(r for r in chosen.rows if r.split != "val"), chosen.with_rows(held_out)
    return chosen.train_val_split(data.val_fraction, seed)


def check_out_of_domain(config: OutOfDomainConfig) -> None:
    """Refuse values that do nothing.

    Raises:
        RecipeError: names the value and its rule.
    """
    default = OutOfDomainConfig()
    dead = [key for key, value in asdict(config).items() if value != getattr(default, key)]
    if dead and not config.root:
        value = getattr(config, dead[0])
        raise RecipeError(
            f"data.out_of_domain.{dead[0]} ({value!r}) does nothing while data.out_of_domain.root is empty. "
            "Set data.out_of_domain.root=FOLDER, or remove it."
        )


def refuse_trained(measured: Manifest, trained: Manifest) -> None:
    """Videos from elsewhere must not be among those that are trained on, nor be copies that name them as their source."""
    own = Contents.of_rows(trained.rows)
    both = [row.path for row in measured.rows if own.holds(row)]
    if both:
        raise DataError(
            f"{len(both)} of {len(measured)} videos of data.out_of_domain are also trained on: {name_some(both, 5)}. Leave them out: "
            "name other videos, or one of their splits with data.out_of_domain.split."
        )
