"""The random row: what the same architecture is worth before it was trained, in the better of its two forms.

A network as initialized carries batch-norm statistics of nothing. Estimating them on training clips can help or hurt by
several points, so both forms are scored; the one that is better *on held-out train* stands beside the pretrained row.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ssvid.backbones import Backbone, initialize_backbone
from ssvid.backbones.batch_statistics import estimating, has_batch_statistics
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.errors import DataError
from ssvid.evals.contract import wants_probe
from ssvid.evals.linear_probe.evaluation import evaluate_backbone
from ssvid.evals.linear_probe.probe import holdouts
from ssvid.evals.neighbors.knn import score_neighbors
from ssvid.features.extracting import Progress, evaluation_mode, extract_features
from ssvid.features.protocol import FeatureProtocol, ProbeProtocol, resolve_feature_protocol
from ssvid.features.reading import clips_of, read_videos
from ssvid.features.store import Features, features_key
from ssvid.files import write_atomic
from ssvid.ranks import ranks
from ssvid.results.rows import ResultRow
from ssvid.weights.checkpoints import weights_sha256
from ssvid.weights.provenance import Provenance

AS_INITIALIZED = "initial"  # running mean 0 and variance 1
CALIBRATED = "calibrated"  # batch norm has statistics of training clips
CALIBRATION_BATCH = 16  # videos of a batch of an anchor, whatever a pass takes otherwise: its statistics depend on it


@dataclass(frozen=True)
class RandomRows:
    """Both forms of the random network. better: the rows to put beside a pretrained network; other: the rest.

    other is empty for a network without batch norm, whose two forms are one.
    """

    better: list[ResultRow]
    other: list[ResultRow]


def random_rows(
    backbone_name: str,
    options: Mapping[str, Any] | None,
    seed: int,
    manifest: Manifest,
    *,
    train_rows: Sequence[VideoRow],
    test_rows: Sequence[VideoRow],
    feature_protocol: FeatureProtocol,
    probe_protocol: ProbeProtocol,
    device: str | torch.device = "cpu",
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
    trained_stage: str | None = None,
    name: str = "random",
    forms: Mapping[str, Backbone] | None = None,
    metrics: Sequence[str] = (),
) -> RandomRows:
    """Score the network that pretraining with this seed started from, as initialized and with batch norm calibrated.

    The better form is the one whose probe is better on the held-out part of train, or whose k-NN is where no probe is asked
    for; test has no say. Its rows are named
    ``name``, the other's "random, initial" or "random, calibrated".

    Args:
        trained_stage: the deepest stage that the pretrained network trained: the random one is scored on the same.
        progress: called with (videos done, videos in all) for each form anew.
        forms: of ``random_forms``, where they were made before. metrics: as of ``evaluate_backbone``.
    """
    if forms is None:
        forms = random_forms(
            backbone_name,
            options,
            seed,
            manifest,
            train_rows,
            feature_protocol,
            device=device,
            cache_dir=cache_dir,
            trained_stage=trained_stage,
        )
    scored = {
        form: evaluate_backbone(
            backbone,
            manifest,
            train_rows=train_rows,
            test_rows=test_rows,
            feature_protocol=feature_protocol,
            probe_protocol=probe_protocol,
            device=device,
            cache_dir=cache_dir,
            progress=progress,
            name=name,
            metrics=metrics,
        )
        for form, backbone in forms.items()
    }
    if wants_probe(metrics):
        heldout = {form: rows[0].context["head"]["heldout_top1"] for form, rows in scored.items()}
    else:
        taken: dict[str, Any] = {"device": device, "cache_dir": cache_dir, "trained_stage": trained_stage}
        heldout = {
            form: heldout_knn(extract_features(one, manifest, train_rows, feature_protocol, **taken), probe_protocol)
            for form, one in forms.items()
        }
    best = max(heldout, key=lambda form: heldout[form])
    choice = {"form": best, "on": "held-out part of train", "heldout_top1": heldout}
    named = {form: [_with_choice(row, choice) for row in rows] for form, rows in scored.items()}
    others = [replace(r, name=f"{name}, {form}") for form, rows in named.items() if form != best for r in rows]
    return RandomRows(named[best], others)


def heldout_knn(train: Features, protocol: ProbeProtocol) -> float:
    """Accuracy of the first k of the k-NN on held-out parts of train, searched among the rest."""
    labels, groups = (np.array(v, dtype=object)[train.readable] for v in (train.labels, train.groups))
    places = np.flatnonzero(train.readable)
    right = []
    for fit_on, score_on in holdouts(labels, groups, protocol, []):
        fewer = replace(protocol, knn_ks=(min(protocol.knn_ks[0], len(fit_on)),))
        gallery, queries = (train.at(places[part]) for part in (fit_on, score_on))
        right += list(next(iter(score_neighbors(gallery, queries, fewer).knn_correct.values())))
    return float(np.mean(right))


def sees_stills(backbone: Backbone) -> bool:
    """Whether two clips, each of one repeated frame, look different to a network. To one that sees differences they do not."""
    info = backbone.info
    device = backbone.mean_C111.device
    frames = torch.rand(2, 3, 1, info.size, info.size, generator=torch.Generator().manual_seed(0)).to(device)
    with evaluation_mode(backbone):
        first, second = backbone.embed(frames.expand(-1, -1, max(info.min_frames, info.num_frames), -1, -1))
    return not torch.allclose(first, second)


def random_forms(
    backbone_name: str,
    options: Mapping[str, Any] | None,
    seed: int,
    manifest: Manifest,
    train_rows: Sequence[VideoRow],
    protocol: FeatureProtocol,
    *,
    device: str | torch.device = "cpu",
    cache_dir: str | Path | None = None,
    trained_stage: str | None = None,
) -> dict[str, Backbone]:
    """The network that pretraining with this seed started from, as initialized and, with batch norm, calibrated.

    Their provenance says so. The statistics are kept in ``cache_dir``. Arguments as of ``random_rows``; errors as of ``calibrate_batch_norm``.
    """
    network = initialize_backbone(backbone_name, options, seed=seed)
    forms = {AS_INITIALIZED: network}
    if has_batch_statistics(network):
        forms[CALIBRATED] = _calibrated(
            network, manifest, train_rows, protocol, torch.device(device), trained_stage, cache_dir
        )
    for form, backbone in forms.items():
        backbone.provenance = Provenance(stage=trained_stage, content_ids=[], random={"seed": seed, "form": form})
    return forms


def _calibrated(
    network: Backbone,
    manifest: Manifest,
    rows: Sequence[VideoRow],
    protocol: FeatureProtocol,
    device: torch.device,
    trained_stage: str | None,
    cache_dir: str | Path | None,
) -> Backbone:
    """``calibrate_batch_norm``, or the statistics that it found before for the same weights, videos and settings."""
    protocol = replace(protocol, batch_size=CALIBRATION_BATCH)
    resolved = resolve_feature_protocol(protocol, network.info, trained_stage)
    key = features_key(network, weights_sha256(network.state_dict()), rows, resolved, device)
    file = None if cache_dir is None else Path(cache_dir) / f"statistics-{resolved.batch_size}-{key[:40]}.safetensors"
    known = _read_statistics(file)
    if known is not None:
        calibrated = copy.deepcopy(network).to(device)
        calibrated.load_state_dict(known, strict=False)
        return calibrated
    calibrated = calibrate_batch_norm(network, manifest, rows, protocol, device=device, trained_stage=trained_stage)
    before = network.state_dict()
    found = {k: v.cpu() for k, v in calibrated.state_dict().items() if not torch.equal(v.cpu(), before[k].cpu())}
    if file is not None and ranks()[0] == 0:
        content = save(found, {"sha256": weights_sha256(found)})
        write_atomic(file, lambda handle: handle.write(content))
    return calibrated


def _read_statistics(file: Path | None) -> dict[str, torch.Tensor] | None:
    """What was kept; None where there is nothing or it is damaged, and is computed again."""
    if file is None or not file.is_file():
        return None
    try:
        with safe_open(file, framework="pt") as content:
            found = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118  it is no mapping
            expected = content.metadata()["sha256"]
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None
    return found if weights_sha256(found) == expected else None


def calibrate_batch_norm(
    backbone: Backbone,
    manifest: Manifest,
    rows: Sequence[VideoRow],
    protocol: FeatureProtocol,
    *,
    device: str | torch.device = "cpu",
    trained_stage: str | None = None,
    seed: int = 0,
) -> Backbone:
    """A copy whose batch-norm statistics are the averages over batches of the rows' clips; no weight changes.

    The rows are shuffled first: manifests are sorted by class, and batches of one class would leave the spread between
    classes out of the variance. A last batch that is not full is left out, as it would count as much as a full one.

    Raises:
        DataError: none of the rows can be read.
    """
    copied = copy.deepcopy(backbone).to(device)
    resolved = resolve_feature_protocol(protocol, copied.info, trained_stage)
    order = np.random.default_rng(seed).permutation(len(rows))
    readable = [rows[i] for i in order if rows[i].is_readable]
    with evaluation_mode(copied), estimating(copied):
        seen = 0
        for clips_BCTHW in _full_batches(manifest, readable, resolved, torch.device(device)):
            copied(clips_BCTHW, copied.info.stage_names)
            seen += 1
    if not seen:
        raise DataError(f"none of the {len(rows)} videos could be read. Set data.root to the folder of the videos.")
    return copied


def _full_batches(
    manifest: Manifest, rows: Sequence[VideoRow], protocol: FeatureProtocol, device: torch.device
) -> Iterator[torch.Tensor]:
    """Batches of clips of ``batch_size`` readable videos each; a smaller one only where there are fewer videos."""
    waiting = []
    given = False
    for item in read_videos(manifest, rows, protocol):
        if item.clips_VTCHW is not None:
            waiting.append(item)
        if len(waiting) == protocol.batch_size:
            yield clips_of(waiting, device)
            waiting, given = [], True
    if waiting and not given:
        yield clips_of(waiting, device)


def _with_choice(row: ResultRow, choice: Mapping[str, Any]) -> ResultRow:
    return replace(row, context={**row.context, "better_form": dict(choice)})
