"""``diff``: what two runs, or two evaluations, have in common and what not: recipe, versions, data, numbers at the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssvid.columns import aligned
from ssvid.data.manifest import Manifest, row_id
from ssvid.errors import RecipeError, RunFolderError, name_some
from ssvid.files import read_json_object, takes_paths
from ssvid.recipe.load import diff_recipes
from ssvid.recipe.yaml_text import parse_yaml
from ssvid.settings import as_today
from ssvid.train.loggers import read_metrics
from ssvid.train.run_folder import RunFolder
from ssvid.video.identity import is_quick

RUN, EVALUATION = "pretraining run", "evaluation"
_SHOWN = 5


@dataclass(frozen=True)
class Finished:
    """What one folder says of itself.

    kind: a pretraining run or an evaluation. recipe, environment: as plain values. manifest_sha256: of the videos, ""
    where unknown. videos: name -> content identity ("" where unknown). quick_ids: the same by the ends of the files, to
    compare a run of today with one whose table knows no more. metrics: name -> value at the end.
    is_complete: False for a run that goes on or was broken off.
    """

    path: Path
    kind: str
    recipe: Mapping[str, Any]
    environment: Mapping[str, Any]
    manifest_sha256: str
    videos: Mapping[str, str]
    metrics: Mapping[str, float]
    is_complete: bool = True
    quick_ids: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DiffResult:
    """Where two folders differ. Prints as a page; ``is_same`` where nothing but their place does.

    recipe: lines ``key.path: old -> new``. environment: the same of versions and hardware. only_first, only_second:
    videos of one alone. changed: videos of both, with other content. metrics: name -> (first, second); None where one
    has no such number.
    """

    first: Finished
    second: Finished
    recipe: list[str]
    environment: list[str]
    only_first: list[str]
    only_second: list[str]
    changed: list[str]
    num_shared: int
    metrics: dict[str, tuple[float | None, float | None]] = field(default_factory=dict)

    @property
    def same_data(self) -> bool:
        """Whether both saw the same videos with the same content, labels and splits."""
        listed = self.only_first or self.only_second or self.changed
        return not listed and self.first.manifest_sha256 == self.second.manifest_sha256

    @property
    def is_same(self) -> bool:
        """Whether recipe, environment, data and numbers are equal."""
        numbers = all(first == second for first, second in self.metrics.values())
        kinds = self.first.kind == self.second.kind and self.first.is_complete == self.second.is_complete
        return kinds and numbers and self.same_data and not self.recipe and not self.environment

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for ``--json``."""
        return {
            "same": self.is_same,
            "runs": [_described(side) for side in (self.first, self.second)],
            "recipe": list(self.recipe),
            "environment": list(self.environment),
            "data": {
                "same": self.same_data,
                "manifest_sha256": [self.first.manifest_sha256, self.second.manifest_sha256],
                "num_shared": self.num_shared,
                "only_first": list(self.only_first),
                "only_second": list(self.only_second),
                "changed_content": list(self.changed),
            },
            "metrics": {name: list(pair) for name, pair in self.metrics.items()},
        }

    def __str__(self) -> str:
        head = [f"{side.path}: {_kind(side)}" for side in (self.first, self.second)]
        verdict = "They do not differ." if self.is_same else "They differ."
        parts = {
            "recipe": self.recipe or ["the same"],
            "versions and hardware": self.environment or ["the same"],
            "data": self._data_lines(),
            "at the end": _number_lines(self.metrics) or ["no numbers"],
        }
        told = [line for title, lines in parts.items() for line in (f"\n{title}", *(f"  {text}" for text in lines))]
        return "\n".join([*head, *told, "", verdict])

    def _data_lines(self) -> list[str]:
        listed = {
            f"only in {self.first.path}": self.only_first,
            f"only in {self.second.path}": self.only_second,
            "with other content": self.changed,
        }
        lines = [f"{len(names)} videos {where}: {name_some(names, _SHOWN)}" for where, names in listed.items() if names]
        if self.same_data:
            return [f"the same {self.num_shared} videos"]
        return lines + [f"{self.num_shared} videos in both"] * bool(lines) or [
            f"the same {self.num_shared} videos, with another label, split, window or order,"
            " or known by their quick identities in one of the tables"
        ]


@takes_paths("first", "second")
def diff(first: str | Path, second: str | Path) -> DiffResult:
    """Compare two run folders, or two folders with a ``results.json``. No folder is changed.

    Raises:
        RunFolderError: one of them is neither, or a file in it is damaged.
    """
    a, b = read_finished(first), read_finished(second)
    shared = set(a.videos) & set(b.videos)
    return DiffResult(
        a,
        b,
        recipe=diff_recipes(a.recipe, b.recipe),
        environment=diff_recipes(a.environment, b.environment),
        only_first=sorted(set(a.videos) - shared),
        only_second=sorted(set(b.videos) - shared),
        changed=sorted(name for name in shared if not _is_same_content(a, b, name)),
        num_shared=len(shared),
        metrics={name: (a.metrics.get(name), b.metrics.get(name)) for name in dict.fromkeys([*a.metrics, *b.metrics])},
    )


def _is_same_content(a: Finished, b: Finished, name: str) -> bool:
    if is_quick(a.videos[name]) == is_quick(b.videos[name]):
        return a.videos[name] == b.videos[name]
    return a.quick_ids.get(name) == b.quick_ids.get(name)


def read_finished(path: str | Path) -> Finished:
    """What a folder says of itself.

    Raises:
        RunFolderError: it is neither a run nor an evaluation, or a file in it is damaged.
    """
    folder = RunFolder(path)
    try:
        if folder.resolved.is_file():
            return _read_run(folder)
        if folder.results.is_file():
            return _read_evaluation(folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecipeError) as error:
        raise RunFolderError(
            f"{path} cannot be compared: a file in it is damaged or of another ssvid ({type(error).__name__}: {error}). "
            "Run it again, or name another folder."
        ) from error
    what = "has neither recipe.resolved.yaml nor results.json" if folder.path.is_dir() else "is not a folder"
    raise RunFolderError(
        f"{path} is no run: it {what}. Name a folder that ssvid pretrain wrote, or one with the results of ssvid probe."
    )


def _read_run(folder: RunFolder) -> Finished:
    resolved = parse_yaml(folder.resolved.read_text(encoding="utf-8"), str(folder.resolved))
    manifest = Manifest.load(folder.manifest, allow_outside=True) if folder.manifest.is_file() else None
    finished = folder.results.is_file()
    return Finished(
        folder.path,
        RUN,
        as_today(resolved),
        read_json_object(folder.env) if folder.env.is_file() else {},
        manifest.sha256() if manifest else "",
        {row_id(row): row.source_id or row.content_id for row in manifest.rows} if manifest else {},
        _last_metrics(folder),
        finished,
        {row_id(row): row.quick_id for row in manifest.rows} if manifest else {},
    )


def _last_metrics(folder: RunFolder) -> dict[str, float]:
    """The last value of every metric that a run wrote down, and the steps done; speeds are no results."""
    last: dict[str, float] = {}
    for line in read_metrics(folder.metrics) if folder.metrics.is_file() else ():
        last |= {key: value for key, value in line.items() if isinstance(value, int | float)}
    found = {key: value for key, value in last.items() if key in ("step", "epoch") or _is_result(key)}
    if folder.results.is_file():
        results = read_json_object(folder.results)
        found |= {f"val/{name}": value for name, value in results.get("metrics", {}).items()}
        found |= {key: results[key] for key in ("num_steps",) if key in results}
    return found


def _is_result(key: str) -> bool:
    return "/" in key and not key.startswith(("perf/", "data/"))


def _read_evaluation(folder: RunFolder) -> Finished:
    results = read_json_object(folder.results)
    rows = results["rows"]
    context = rows[0] if rows else {}
    environment = {"packages": results.get("versions", {})}
    if "device" in context:
        environment["device"] = context["device"]
    videos = {name: "" for names in results["video_lists"].values() for name in names}
    return Finished(
        folder.path,
        EVALUATION,
        as_today(results.get("recipe", {})) | _what_was_scored(rows),
        environment,
        str(context.get("manifest_sha256", "")),
        videos,
        {f"{row['name']}: {row['metric']}": float(row["value"]) for row in rows},
    )


def _what_was_scored(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Beside its recipe, an evaluation depends on the weights."""
    weights = {row["name"]: row["weights_sha256"][:16] for row in rows if "weights_sha256" in row}
    return {"weights": weights} if weights else {}


def _described(side: Finished) -> dict[str, Any]:
    return {"path": str(side.path), "kind": side.kind, "complete": side.is_complete, "num_videos": len(side.videos)}


def _kind(side: Finished) -> str:
    return side.kind if side.is_complete else f"{side.kind}, not complete"


def _number_lines(metrics: Mapping[str, tuple[float | None, float | None]]) -> list[str]:
    """One line per number: name, first, second, difference."""
    return aligned([(name, _text(a), _text(b), _change(a, b)) for name, (a, b) in metrics.items()], right=(1, 2))


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.5g}"


def _change(a: float | None, b: float | None) -> str:
    return "" if a is None or b is None or a == b else f"{b - a:+.5g}"
