"""The named protocols whose labels are carried by propagation, as the tests of its parts take them."""

from __future__ import annotations

from dataclasses import replace

from ssvid.features.propagation_protocol import PropagationProtocol
from ssvid.protocols.tracking import TRACKING

# Points are followed by another tracker (tests of points.py).
PROTOCOLS = {
    protocol.name: PropagationProtocol(**protocol.settings["track"])
    for protocol in TRACKING
    if protocol.settings["track"]["measure"] != "points"
}

# What the tests change or leave alone: how large frames are, and what is scored.
_ALIKE = {"measure": "all", "joint_cells": 3, "size_rule": "native", "size_px": 480, "width_px": 0, "stride_px": 8}
_NAMES = {
    replace(
        protocol, **_ALIKE, multiple_px=1, multiple_rounding="down", multiple_sides="both", frame_resampling="nearest",
        antialias=False, score_size="video", score_resampling="nearest",
    ): name
    for name, protocol in reversed(PROTOCOLS.items())
}  # fmt: skip

# One name for each way to propagate.
DISTINCT = sorted(_NAMES.values(), key=list(PROTOCOLS).index)
