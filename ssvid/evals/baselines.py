"""The random row: what the same architecture is worth before it was trained, in the better of its two forms.

A network as initialized carries batch-norm statistics of nothing. Estimating them on training clips can help or hurt by
several points, so both forms are scored; the one that is better *on held-out train* stands beside the pretrained row.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ssvid.backbones import Backbone, initialize_backbone
from ssvid.backbones.batch_statistics import estimating, has_batch_statistics
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.errors import DataError
from ssvid.evals.contract import LabeledData, Tools
from ssvid.features.passes import evaluation_mode
from ssvid.features.protocol import FeatureProtocol, resolve_feature_protocol
from ssvid.features.reading import clips_of, read_videos
from ssvid.features.store import digest_of, features_identity, video_names
from ssvid.files import write_atomic
from ssvid.ranks import ranks
from ssvid.weights.checkpoints import weights_sha256
from ssvid.weights.provenance import Provenance

AS_INITIALIZED = "initial"  # running mean 0 and variance 1
CALIBRATED = "calibrated"  # batch norm has statistics of training clips
CALIBRATION_BATCH = 16  # videos of a batch of a baseline, whatever a pass takes otherwise: its statistics depend on it


def sees_stills(backbone: Backbone) -> bool:
    """Whether two clips, each of one repeated frame, look different to a network. To one that sees differences they do not."""
    info = backbone.info
    device = backbone.mean_C111.device
    frames = torch.rand(2, info.in_channels, 1, info.size, info.size, generator=torch.Generator().manual_seed(0)).to(
        device
    )
    with evaluation_mode(backbone):
        first, second = backbone.embed(frames.expand(-1, -1, max(info.min_frames, info.num_frames), -1, -1))
    return not torch.allclose(first, second)


def random_forms(
    network: Backbone, seed: int, protocol: FeatureProtocol, data: LabeledData, tools: Tools, *, both: bool = True
) -> dict[str, Backbone]:
    """The network that pretraining with this seed started from, as initialized and, with batch norm, calibrated.

    Their provenance says so. The statistics are kept in ``cache_dir``. Errors as of ``calibrate_batch_norm``.

    Args:
        network: of the same architecture, trained to the same stage. both: the calibrated form as well.
    """
    origin = getattr(network, "provenance", {})
    initial = initialize_backbone(network.info.name, network.info.options, seed=seed)
    forms = {AS_INITIALIZED: initial}
    if both and has_batch_statistics(initial):
        forms[CALIBRATED] = _calibrated(initial, data, protocol, tools, origin.get("stage"))
    for form, backbone in forms.items():
        backbone.provenance = Provenance(stage=origin.get("stage"), content_ids=[], random={"seed": seed, "form": form})
    return forms


def _calibrated(
    network: Backbone, data: LabeledData, protocol: FeatureProtocol, tools: Tools, trained_stage: str | None
) -> Backbone:
    """``calibrate_batch_norm``, or the statistics that it found before for the same weights, videos and settings."""
    protocol, device = replace(protocol, batch_size=CALIBRATION_BATCH), torch.device(tools.device)
    resolved = resolve_feature_protocol(protocol, network.info, trained_stage)
    identity = features_identity(network, weights_sha256(network.state_dict()), resolved, device)
    key = digest_of(identity | {"videos": video_names(data.manifest, data.train, resolved)})
    name = f"statistics-{resolved.batch_size}-{key[:40]}.safetensors"
    file = None if tools.cache_dir is None else Path(tools.cache_dir) / name
    known = _read_statistics(file)
    if known is not None:
        calibrated = copy.deepcopy(network).to(device)
        calibrated.load_state_dict(known, strict=False)
        return calibrated
    calibrated = calibrate_batch_norm(
        network, data.manifest, data.train, protocol, device=device, trained_stage=trained_stage
    )
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
