"""The knobs of the protocols whose propagation is published, and of our own default."""

from __future__ import annotations

from dataclasses import replace

from ssvid.evals.label_propagation.protocol import PropagationProtocol

_TIMECYCLE = PropagationProtocol(
    num_previous=7, primed=True, temperature=512**-0.5, top_k=5, top_k_over="frame", softmax_over="all", radius_cells=0,
    label_resampling="bilinear", grid="stretched", feedback="min_max", decision_size="frame",
)  # fmt: skip
_CRW = PropagationProtocol(
    num_previous=20, primed=True, temperature=0.05, top_k=10, radius_cells=12, radius_includes=False,
    label_resampling="bilinear", grid="stretched",
)  # fmt: skip
_DINO = PropagationProtocol(
    num_previous=7, temperature=0.1, top_k=5, radius_cells=12, radius_shape="square", radius_on_first=True,
    label_resampling="nearest_exact", grid="stretched", decision_min_max=True, decision_size="frame",
)  # fmt: skip
_CROPMAE = replace(_CRW, temperature=0.7, top_k=7, radius_cells=20)
_DINOV3 = replace(_DINO, temperature=0.2, radius_shape="circle", decision_resampling="nearest")

PROTOCOLS = {
    "track": PropagationProtocol(),
    "davis2017-timecycle": _TIMECYCLE,
    "davis2017-crw": _CRW,
    "davis2017-dino": _DINO,
    "davis2017-cropmae": _CROPMAE,
    "davis2017-rvm": _CROPMAE,
    "davis2017-dinov3": _DINOV3,
    "jhmdb-timecycle": replace(_TIMECYCLE, measure="joints"),
    "jhmdb-crw": replace(_CRW, measure="joints"),
    "jhmdb-cropmae": replace(_CROPMAE, measure="joints", joint_cells=5),
    "vip-crw": replace(_CRW, measure="parts"),
    "vip-cropmae": replace(_CROPMAE, measure="parts", top_k=10),
}

# One name for each way to propagate: what is scored makes no difference to it.
_NAMES = {replace(protocol, measure="objects", joint_cells=3): name for name, protocol in reversed(PROTOCOLS.items())}
DISTINCT = sorted(_NAMES.values(), key=list(PROTOCOLS).index)
