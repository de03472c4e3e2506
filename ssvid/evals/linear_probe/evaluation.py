"""The linear probe as an evaluation: vectors in, numbers out; with all labels, and with few."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ssvid.evals.contract import Evaluation, LabeledData, Number, Seen, Subject, Tools, plain, register_evaluation
from ssvid.evals.hand_made import HandMade, svm_number
from ssvid.evals.linear_probe.low_shot import linear_probe_of_few
from ssvid.evals.linear_probe.probe import GridPoint, ProbeResult, linear_probe
from ssvid.features.protocol import ProbeProtocol, check_probe_protocol
from ssvid.results.rows import ResultRow


class _Probe(Evaluation):
    Config = ProbeProtocol
    metrics = ("probe",)
    settings_name = "probe_protocol"

    def check(self, config: ProbeProtocol, num_train: int | None = None) -> None:
        check_probe_protocol(config)

    def heldout(self, rows: Sequence[ResultRow], *rest: Any) -> float:
        return float(rows[0].context["head"]["heldout_top1"])


@register_evaluation("linear_probe")
class LinearProbe(_Probe):
    """Top-1, and top-5 above 5 classes, of a head that is chosen on held-out train; of vectors made by hand that of a linear SVM."""

    def score(
        self, subject: Subject, seen: Seen, data: LabeledData, config: ProbeProtocol, tools: Tools
    ) -> Iterator[Number]:
        if isinstance(subject.network, HandMade):
            yield svm_number("probe_top1", subject.network, seen, config)
            return
        probe = _probe_of(seen, config, tools)
        head = {
            "chosen": {**_chosen(probe.selection.chosen), "on": "held-out part of train"},
            "heldout_top1": probe.selection.heldout_top1,
            "num_heldout": probe.selection.num_heldout,
            "grid": [plain(point) for point in probe.selection.grid],
            "warnings": list(probe.warnings),
        }
        said = {"head": head, "predictions": list(probe.predictions)}
        yield Number("probe_top1", probe.correct_N, probe.chance, said, probe.warnings)
        if probe.top5_correct_N is not None and probe.top5_chance is not None:
            yield Number("probe_top5", probe.top5_correct_N, probe.top5_chance, {"head": head}, probe.warnings)


@register_evaluation("low_shot")
class LowShot(_Probe):
    """The linear probe with a share of the training labels, for each of ``label_fractions``; not of vectors made by hand."""

    def score(
        self, subject: Subject, seen: Seen, data: LabeledData, config: ProbeProtocol, tools: Tools
    ) -> Iterator[Number]:
        if isinstance(subject.network, HandMade):
            return
        for share in config.label_fractions:
            whole = _probe_of(seen, config, tools).selection
            few = linear_probe_of_few(seen.train, seen.test, share, config, fallback=whole, device=tools.device)
            on = "held-out part of these" if few.selection.num_heldout else "all labels"
            head = {
                "chosen": {**_chosen(few.selection.chosen), "on": on},
                "num_train": few.num_train,
                "label_fraction": share,
            }
            said = {"head": head, "predictions": list(few.predictions)}
            yield Number(f"probe_top1_of_{100 * share:g}%", few.correct_N, few.chance, said, few.warnings)


def _probe_of(seen: Seen, config: ProbeProtocol, tools: Tools) -> ProbeResult:
    return seen.once(config, lambda: linear_probe(seen.train, seen.test, config, device=tools.device))


def _chosen(point: GridPoint) -> dict[str, Any]:
    how = {"regularization": point.regularization, "normalization": point.normalization, "stages": list(point.stages)}
    return how if point.learning_rate is None else how | {"learning_rate": point.learning_rate}
