"""Entry points of torch.hub: one for each registered backbone, and ``load`` for weights of ours.

``torch.hub.load(repository, "r3d_18", pretrained="torchvision:KINETICS400_V1")``
"""

import functools

import ssvid.backbones as _networks  # under a private name: torch.hub takes every other callable for an entry point

dependencies = ["torch", "torchvision", "safetensors", "numpy"]


def load(path, **options):
    """A backbone with its weights, from a checkpoint, a run folder, an exported folder or ``hf://owner/name[@revision]``.

    options: of the network, over those that it was trained with (strides take the same weights).
    """
    from ssvid.exports import load_backbone

    return load_backbone(path, options=options or None)


def _create(name: str, pretrained: str = "", seed: int = 0, **options) -> _networks.Backbone:
    backbone = _networks.initialize_backbone(name, options, seed=seed)
    if pretrained:
        from ssvid.exports import initialize
        from ssvid.weights.provenance import Provenance

        report = initialize(backbone, pretrained)
        backbone.provenance = Provenance(init=report.as_dict())
        print(report)
    return backbone.eval()


def _entry_point(name: str):
    create = functools.partial(_create, name)
    create.__doc__ = (
        f"{(_networks.backbones.get(name).__doc__ or name).strip()}\n\npretrained: torchvision:NAME, a file of weights, or a "
        'checkpoint or export of ours; "" gives the weights of ``seed``. Further keywords are options of the network.'
    )
    return create


globals().update({name: _entry_point(name) for name in _networks.list_backbones()})
