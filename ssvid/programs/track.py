"""``track``: frozen backbone -> a feature map of each frame -> labels carried through videos, with the baselines beside."""

from __future__ import annotations

from ssvid.programs.evaluate import program

track = program(
    "track",
    """Let a frozen backbone's features follow masks, parts, joints and points of one frame, beside what else can follow them.

    Beside it stand its random initialization, labels that do not move, raw pixels as features, and optical flow.""",
)
