"""``retrieve``: frozen backbone -> features -> R@k, with the other rows beside, a picture and a page of queries."""

from __future__ import annotations

from ssvid.programs.evaluate import program

retrieve = program(
    "retrieve",
    """Let test videos look for their class among the training videos, beside the backbone's random initialization.

    ``neighbors.svg`` and ``neighbors.html`` show some queries with what they found.""",
)
