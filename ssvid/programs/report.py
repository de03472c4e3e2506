"""``report``: one table over any number of results, and a page of one run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ssvid.errors import DataError, RecipeError, RunFolderError, did_you_mean
from ssvid.files import read_json_object, takes_paths, write_atomic
from ssvid.protocols.metrics import title_of
from ssvid.recipe.load import diff_recipes
from ssvid.recipe.protocol_notes import brought_up
from ssvid.recipe.yaml_text import to_yaml
from ssvid.results.curves import Panel, panels_of
from ssvid.results.formats import TABLE_FORMATS
from ssvid.results.page import RunPage, embed_pictures, render_page
from ssvid.results.reading import Column, Result, numbers_of, read_result
from ssvid.results.table import PRETRAINED, Table, build_table
from ssvid.train.run_folder import RunFolder

_SHOWN = 12  # settings that a refusal names
_MOST_LOGS = 8  # networks of a fine-tuning whose curves are drawn
# Settings that tell no two numbers apart: where things lie, and how they are loaded.
_TELL_NOTHING = ("data.root:", "data.list:", "data.annotations:", "loader.", "logger.", "protocol:")


@dataclass(frozen=True)
class ReportResult:
    """A table over results. Prints as ``text``, in the format that was asked for.

    table: None for a run that was not evaluated yet. results: the files it was made from. out, page: files written.
    """

    table: Table | None
    text: str
    results: tuple[Path, ...]
    out: Path | None = None
    page: Path | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain types, in full precision."""
        return {
            "table": self.table.as_dict() if self.table else None,
            "results": [str(path) for path in self.results],
            "out": str(self.out) if self.out else None,
            "page": str(self.page) if self.page else None,
        }

    def __str__(self) -> str:
        shown = f"table: {self.out}" if self.out else self.text
        return "\n\n".join([shown] * bool(shown) + [f"page: {self.page}"] * bool(self.page))


@takes_paths("results", "out", "html")
def report(
    *results: str | Path,
    metric: Sequence[str] | None = None,
    protocol: str | None = None,
    one_column: bool = False,
    format: str = "text",
    html: str | Path | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
) -> ReportResult:
    """One table over results: networks down, metrics across, one protocol and one set of test videos to a column.

    Args:
        results: ``results.json`` of ``probe``, ``retrieve`` or ``finetune``, or folders with such files below them.
        metric: only these. protocol: only numbers under this one, by its name or the start of its hash.
        one_column: refuse where the numbers of a metric would not share a column.
        format: text, markdown, latex or csv. out: a file for the table.
        html: a file for a page of the one run, or the one evaluation, that is named.
        overwrite: replace these two files where they exist.

    Raises:
        DataError: a file to write exists; nothing that can be shown, or ``one_column`` cannot be had; says in which settings they differ.
        RecipeError: an unknown format, or a page of several runs.
    """
    if format not in TABLE_FORMATS:
        raise RecipeError(f"format ({format!r}) is unknown. {did_you_mean(format, TABLE_FORMATS)}")
    if not results:
        raise RecipeError("ssvid report needs at least one RESULT: a results.json, or a folder with one below it.")
    if html is not None and len(results) > 1:
        raise RecipeError(
            f"--html makes a page of one run, and {len(results)} are named. Name one, or leave --html out."
        )
    for option, file in (("-o", out), ("--html", html)):
        _check_target(option, file, overwrite)
    read = read_all(results, may_be_none=html is not None)
    table = build_table(read, metrics=tuple(metric or ()), protocol=protocol or "") if read else None
    if table is not None and one_column:
        _refuse_several(table, read)
    text = TABLE_FORMATS[format](table) if table is not None else ""
    written = Path(out) if out is not None and table is not None else None
    if written is not None:
        write_atomic(written, lambda file: file.write(f"{text}\n".encode()))
    page = Path(html) if html is not None else None
    if page is not None:
        content = render_page(page_of(Path(results[0]), read, table))
        write_atomic(page, lambda file: file.write(content.encode("utf-8", "replace")))
    return ReportResult(table, text, tuple(result.path for result in read), written, page)


def _check_target(option: str, file: str | Path | None, overwrite: bool) -> None:
    """Refuse before anything is read what would be refused after it."""
    if file is None:
        return
    path = Path(file)
    if option == "-o" and path.suffix.lower() in (".html", ".htm"):
        raise RecipeError(f"-o ({file}) is for the table, which is no HTML. Write a page with --html {file}.")
    if path.is_dir():
        raise DataError(
            f"{option} ({file}) is a folder. Name a file: {option} {path / ('run.html' if option == '--html' else 'table.txt')}"
        )
    if path.exists() and not overwrite:
        raise DataError(f"{file} exists, and a report replaces no file unasked. Add --overwrite, or name another file.")


# ---- which files


def read_all(named: Sequence[str | Path], *, may_be_none: bool = False) -> list[Result]:
    """Every evaluation among the files and below the folders, each with a label that no other has.

    Raises:
        DataError: one of the names is no result, and holds none.
    """
    paths: dict[Path, None] = {}
    for name in named:
        for path in result_files(Path(name), may_be_none=may_be_none):
            paths.setdefault(path.resolve())
    return _labeled(list(paths))


def result_files(path: Path, *, may_be_none: bool = False) -> list[Path]:
    """The ``results.json`` of evaluations: the file itself, or those below the folder; not the one of a pretraining.

    Raises:
        DataError: there is none, or one cannot be read.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"{path} does not exist. Name a results.json, or a folder with one below it.")
    found: list[Path] = []
    for file in sorted(path.rglob("results.json"), key=lambda file: (len(file.parts), file)):
        if not any(other.parent in file.parents for other in found) and _is_evaluation(file):
            found.append(file)  # what lies below an evaluation are parts of it
    if not found and not (may_be_none and RunFolder(path).resolved.is_file()):
        raise DataError(
            f"{path} holds no results.json of an evaluation. Evaluate first: ssvid probe RECIPE --backbone {path}"
        )
    return found


def _is_evaluation(path: Path) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read ({type(error).__name__}: {error}). Evaluate again, or remove it."
        ) from error
    return isinstance(content, dict) and "rows" in content


def _labeled(paths: Sequence[Path]) -> list[Result]:
    """Evaluations of one run share the run's name, so that its numbers stand in one line, unless they contradict."""
    homes = [_run_of(path) for path in paths]
    names = _told_apart(list(dict.fromkeys(homes)))
    labels = [names[home] for home in homes]
    results = [_read(path, label) for path, label in zip(paths, labels, strict=True)]
    for label in set(labels):
        mine = [i for i, own in enumerate(labels) if own == label]
        if len(mine) > 1 and _contradict([results[i] for i in mine]):
            apart = _told_apart([paths[i].parent for i in mine])
            for i in mine:
                more = apart[paths[i].parent]
                results[i] = _read(paths[i], label if more == label else f"{label}/{more.removeprefix(f'{label}/')}")
    return results


def _read(path: Path, label: str) -> Result:
    result = read_result(path, label)
    return replace(result, rows=tuple(brought_up(row, result.recipe) for row in result.rows))


def _run_of(path: Path) -> Path:
    """The run folder that an evaluation stands in, or its own folder."""
    for folder in path.parent.parents:
        if RunFolder(folder).resolved.is_file():
            return folder
    return path.parent


def _told_apart(folders: Sequence[Path]) -> dict[Path, str]:
    """Folder -> as few of the last parts of its path as no other has."""
    for count in range(1, max((len(folder.parts) for folder in folders), default=0) + 1):
        names = {folder: "/".join(folder.parts[-count:]) for folder in folders}
        if len(set(names.values())) == len(names):
            return names
    return {folder: str(folder) for folder in folders}


def _contradict(results: Sequence[Result]) -> bool:
    """Whether two results have a number in the same place, or were measured with other pretrained weights."""
    keys = [key for result in results for key in numbers_of(result)]
    weights = {
        frozenset(row.context.get("weights_sha256", "") for row in result.rows if row.name == PRETRAINED)
        for result in results
    } - {frozenset()}
    return len(keys) > len(set(keys)) or len(weights) > 1


# ---- what does not go together


def _refuse_several(table: Table, results: Sequence[Result]) -> None:
    """Raise DataError where a metric has more than one column."""
    for metric in dict.fromkeys(column.metric for column in table.columns):
        mine = [i for i, column in enumerate(table.columns) if column.metric == metric]
        if len(mine) > 1:
            first, second = mine[:2]
            raise DataError(
                f"{title_of(metric)} was measured in {len(mine)} ways, and numbers of one column must have been measured in "
                f"one: {_way(table, first)} and {_way(table, second)}. They differ in "
                f"{_differ(table.columns[first], table.columns[second], results)}. Evaluate with one protocol on one set "
                "of test videos, restrict the table with --protocol, or leave --one-column out for a column each."
            )


def _way(table: Table, i: int) -> str:
    _, protocol, videos = table.heads[i]
    return f"{protocol} on {videos}"


def _differ(a: Column, b: Column, results: Sequence[Result]) -> str:
    told = []
    if a.protocol != b.protocol:
        ours, theirs = _recipe_of(a, results), _recipe_of(b, results)
        known = diff_recipes(ours, theirs) if ours and theirs else []  # older files hold no recipe
        lines = [line for line in known if not line.startswith(_TELL_NOTHING)]
        more = f"; and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
        told.append("; ".join(lines[:_SHOWN]) + more if lines else "settings that these files do not hold")
    if a.data != b.data:
        told.append(f"the test videos: {_videos(a, b, results)}")
    return "; and in ".join(told)


def _recipe_of(column: Column, results: Sequence[Result]) -> Mapping[str, Any]:
    return next(r.recipe for r in results if any(key[1] == column for key in numbers_of(r)))


def _videos(a: Column, b: Column, results: Sequence[Result]) -> str:
    sets = [_ids_of(column, results) for column in (a, b)]
    shared = len(sets[0] & sets[1])
    if sets[0] == sets[1]:
        return f"the same {shared} names, with other folds, labels or content"
    return f"{len(sets[0])} and {len(sets[1])}, {shared} of them in both"


def _ids_of(column: Column, results: Sequence[Result]) -> set[str]:
    rows = next(rows for r in results for key, rows in numbers_of(r).items() if key[1] == column)
    return {video for row in rows for video in row.ids}


# ---- the page


def page_of(path: Path, results: Sequence[Result], table: Table | None) -> RunPage:
    """Everything that a run folder, or the folder of an evaluation, holds for the eye.

    Raises:
        RunFolderError: a file of it is damaged.
    """
    folder = RunFolder(path if path.is_dir() else path.parent)
    is_run = not (folder.results.is_file() and _is_evaluation(folder.results)) and folder.resolved.is_file()
    try:
        outcome = read_json_object(folder.results) if is_run and folder.results.is_file() else {}
        panels = _panels(folder, outcome.get("chance", {}))
        environment = read_json_object(folder.env) if folder.env.is_file() else _versions(results)
        recipe = folder.resolved.read_text(encoding="utf-8") if folder.resolved.is_file() else _recipes(results)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(
            f"{path} cannot be shown: a file in it is damaged or of another ssvid ({type(error).__name__}: {error}). "
            "Run it again, or name another folder."
        ) from error
    pictures, left_out = embed_pictures(_picture_files(folder, results))
    return RunPage(
        title=folder.path.resolve().name,
        kind="pretraining run" if is_run else "evaluation",
        outcome=outcome,
        is_complete=bool(outcome) or not is_run,
        panels=panels,
        table=table,
        results=results,
        pictures=pictures,
        left_out=left_out,
        environment=environment,
        recipe=recipe,
    )


def _panels(folder: RunFolder, chance: Mapping[str, float]) -> list[Panel]:
    """The curves of a pretraining; of a fine-tuning those of each network, the first few where it has many."""
    from ssvid.train.loggers import read_metrics  # imports the trainer

    if folder.metrics.is_file():
        return panels_of(read_metrics(folder.metrics), chance)
    if not (folder.results.is_file() and _is_evaluation(folder.results)):
        return []
    panels: list[Panel] = []
    for log in sorted(folder.path.rglob("metrics.jsonl"))[:_MOST_LOGS]:
        where = log.parent.relative_to(folder.path).as_posix()
        panels += [replace(panel, title=f"{where}: {panel.title}") for panel in panels_of(read_metrics(log), chance)]
    return panels


def _versions(results: Sequence[Result]) -> dict[str, Any]:
    if not results:
        return {}
    devices = sorted(
        {str(row.context["device"]) for result in results for row in result.rows if "device" in row.context}
    )
    return {"packages": dict(results[0].versions)} | ({"device": ", ".join(devices)} if devices else {})


def _recipes(results: Sequence[Result]) -> str:
    return "\n".join(to_yaml(dict(result.recipe)) for result in results if result.recipe)


def _picture_files(folder: RunFolder, results: Sequence[Result]) -> list[tuple[str, Path]]:
    """Those of the evaluations first, then what the task saw, in the order of the run."""
    beside = [(result.path.parent, path) for result in results for path in sorted(result.path.parent.iterdir())]
    found = [(folder.name, path) for folder, path in beside if path.suffix in (".svg", ".png", ".mp4")]
    return found + [("pretraining", path) for path in sorted(folder.pictures.glob("*.png"))]
