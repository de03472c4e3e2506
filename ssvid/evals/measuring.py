"""From the answers of an evaluation to rows: the vectors it is asked about, and all that a number depends on beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from ssvid.data.contents import units_of
from ssvid.data.manifest import VideoRow, row_id
from ssvid.errors import PluginError, name_some
from ssvid.evals.contract import Evaluation, LabeledData, Number, Seen, Side, Subject, Tools, plain
from ssvid.evals.hand_made import HandMade
from ssvid.features import extracting
from ssvid.features.protocol import FLOW_READER, resolve_feature_protocol
from ssvid.features.store import Features
from ssvid.machine import versions
from ssvid.progress import every_tenth
from ssvid.results.leaks import leak_note, leak_words
from ssvid.results.rows import ResultRow
from ssvid.weights.checkpoints import weights_sha256
from ssvid.weights.provenance import Provenance

RANDOM = "random"
RANDOM_FORM = f"{RANDOM}, "  # what the names of the two forms of the random network start with
Asked = dict[Evaluation, Any]  # with the options of each
Sides = tuple[Side, Side]


class Around:
    """What is done around the rows of the networks: nothing, where nothing is trained."""

    def begun(self, asked: Asked, subjects: Sequence[Subject], data: LabeledData) -> AbstractContextManager[Any]:
        """Entered before the first network is asked."""
        return contextlib.nullcontext()

    def rows(self, subject: Subject, measured: Callable[[Tools], Iterable[ResultRow]], tools: Tools) -> list[ResultRow]:
        """The rows of one network, as they are measured now or as they are known."""
        tools.say(f"scoring {subject.name}")
        return list(measured(tools))


def need_vectors(asked: Asked) -> bool:
    """Whether any evaluation is handed the vectors of the videos."""
    return any(evaluation.needs == "vectors" for evaluation in asked)


def ask(
    asked: Asked, subjects: Sequence[Subject], data: LabeledData, tools: Tools, around: Around
) -> tuple[list[ResultRow], dict[str, Seen]]:
    """The rows of all networks, the better one of two random forms first; and their vectors, by the names of the rows."""
    seen = see(subjects, data, tools) if need_vectors(asked) else {}
    with around.begun(asked, subjects, data):
        found = {
            one.name: around.rows(one, partial(measure, asked, one, seen.get(one.name), data), tools)
            for one in subjects
        }
    chooser, options = next(iter(asked.items()))
    heldout = {
        one.name: chooser.heldout(found[one.name], one, seen.get(one.name), data, options, tools)  # type: ignore[arg-type]
        for one in subjects
        if one.name.startswith(RANDOM_FORM)
    }
    if heldout and seen:
        seen[RANDOM] = seen[max(heldout, key=lambda form: heldout[form])]
    return better_random_first(found, heldout, chooser.heldout_name), seen


def see(subjects: Sequence[Subject], data: LabeledData, tools: Tools) -> dict[str, Seen]:
    """The features of all subjects, by their names, from one reading of the videos.

    Raises:
        RecipeError, DataError, DecodeError: as ``read_features``.
    """
    own = {one.name: seen for one in subjects if (seen := _seen_by_itself(one, data, tools)) is not None}
    subjects = [one for one in subjects if one.name not in own]
    if not subjects:
        return own
    tools.say(
        f"features of {len(subjects)} networks and baselines from one reading of {len(data.train) + len(data.test)} videos"
    )
    asked = [extracting.Subject(one.network, one.protocol, one.stage) for one in subjects]

    def of(side: str, rows: Sequence[VideoRow]) -> list[Features]:
        told = every_tenth(tools.say, f"{side} videos")
        return extracting.read_features(
            asked, data.manifest, rows, device=tools.device, cache_dir=tools.cache_dir, progress=told
        )

    both = zip(subjects, of("train", data.train), of("test", data.test), strict=True)
    return {one.name: Seen(train, test) for one, train, test in both} | own


def _seen_by_itself(subject: Subject, data: LabeledData, tools: Tools) -> Seen | None:
    return subject.network.see(subject, data, tools) if isinstance(subject.network, HandMade) else None


def measure(asked: Asked, subject: Subject, seen: Any, data: LabeledData, tools: Tools) -> Iterator[ResultRow]:
    """The rows of one network: the numbers of each evaluation in turn, under the options it is asked with.

    seen: its vectors; None where no evaluation needs them.
    """
    ids, groups = [row_id(row) for row in data.test], units_of(data.test)
    sides: Sides | None = None
    for evaluation, config in asked.items():
        for number in evaluation.score(subject, seen, data, config, tools):
            own = number.seen or (seen and (seen.train, seen.test))
            if own is None:
                raise PluginError(
                    f"evaluation {type(evaluation).__name__} needs {evaluation.needs}, and its number {number.metric!r} does not "
                    "say what became of the videos. Give Number its seen=(train, test)."
                )
            if sides is None or own[1] is not sides[1]:
                sides, context = own, _context(subject, own, data, tools)
            told, notes = ({}, ()) if seen is None else (seen.more, seen.notes)
            whole = {**context, evaluation.settings_name: plain(config), **told, **number.more}
            whole["notes"] = [*notes_of(whole), *notes, *number.notes]
            if number.title:
                whole["title"] = number.title
            yield _row(subject.name, number, ids, groups, whole)


def _row(name: str, number: Number, ids: Sequence[str], groups: Sequence[str], context: dict[str, Any]) -> ResultRow:
    """A number with its interval and its context. ids, groups: of the test videos."""
    units = number.units
    if units is None:
        return ResultRow.counted(name, number.metric, number.correct_N, number.chance, ids, groups, context)
    context["units"] = [units.noun, units.groups_noun]
    of = (name, number.metric, number.correct_N, number.chance, units.ids, units.groups, context)
    return ResultRow.counted(*of) if units.interval is None else ResultRow.averaged(*of, interval=units.interval)


def _context(subject: Subject, sides: Sides, data: LabeledData, tools: Tools) -> dict[str, Any]:
    """What every number of a network depends on."""
    network = subject.network
    context = {
        "backbone": {"name": network.info.name, "options": dict(network.info.options)},
        "weights_sha256": weights_sha256(network.state_dict()),
        "weights": Provenance.of(subject.origin).to_row(),
        "device": str(tools.device),
        "manifest_sha256": data.manifest.sha256(),
        "data": {
            side: {
                "split": sorted({row.split for row in rows}),
                "num_videos": len(rows),
                "num_classes": len({row.label for row in rows}),
                "unreadable": [list(listed) for listed in became.unreadable],
                "padded": list(became.padded),
                "decoders": dict(became.decoders or {}),
            }
            for side, rows, became in zip(("train", "test"), (data.train, data.test), sides, strict=True)
        },
        "leak": leak_note(data.test, data.train, subject.origin, data.manifest.rows),
        "versions": versions(),
    }
    if isinstance(sides[1], Features):
        resolved = resolve_feature_protocol(subject.protocol, network.info, subject.stage)
        context["feature_protocol"] = asdict(resolved)
    return context


def notes_of(context: Mapping[str, Any]) -> list[str]:
    """One line for each thing that a reader of the number must know."""
    test, train = context["data"]["test"], context["data"]["train"]
    weights = context["weights"]
    listed = {
        "unreadable test videos, counted as wrong": [video for video, _ in test["unreadable"]],
        "unreadable training videos, left out": [video for video, _ in train["unreadable"]],
        "test videos shorter than a clip, last frame repeated": test["padded"],
        "training videos shorter than a clip, last frame repeated": train["padded"],
    }
    said = [f"{what}: {len(videos)} ({name_some(videos, 5)})" for what, videos in listed.items() if videos]
    read_as_flow = [name.removeprefix(FLOW_READER) for name in test["decoders"] if name.startswith(FLOW_READER)]
    said += [f"clips of optical flow ({', '.join(read_as_flow)})"] if read_as_flow else []
    said += leak_words(context["leak"])
    if defects := context.get("feature_protocol", {}).get("defects"):
        said.append(f"with defects of released scripts, to compare with them: {', '.join(defects)}")
    if weights["placebo"] and not weights.get("placebo_answers"):
        said.append(
            "this placebo was trained by an earlier ssvid, and about one sample in each batch kept its true answer"
        )
    if weights["partial"]:
        said.append("the weights were loaded in part (--partial or init_partial)")
    init = weights.get("init")
    if init and init["unknown_videos"]:
        said.append(f"the weights started from {init['from']}; whether that has seen test videos is not known")
    return said


def better_random_first(
    rows: Mapping[str, list[ResultRow]], heldout: Mapping[str, float], name: str
) -> list[ResultRow]:
    """All rows; of two random forms the one that is better on held-out train is called "random" and stands first.

    Args:
        rows: by the names of the subjects, in order. heldout: what each form scores on held-out train; {} where there is one.
        name: what results call that score.
    """
    if not heldout:
        return [row for of_subject in rows.values() for row in of_subject]
    best = max(heldout, key=lambda form: heldout[form])
    scores = {form.removeprefix(RANDOM_FORM): value for form, value in heldout.items()}
    choice = {"form": best.removeprefix(RANDOM_FORM), "on": "held-out part of train", name: scores}
    forms = sorted(heldout, key=lambda form: form != best)
    found: list[ResultRow] = []
    for subject in rows:
        form = forms.pop(0) if subject in heldout else subject
        for row in rows[form]:
            if form in heldout:
                title = RANDOM if form == best else form
                row = replace(row, name=title, context={**row.context, "better_form": choice})
            found.append(row)
    return found
