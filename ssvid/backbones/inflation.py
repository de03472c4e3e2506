"""From weights of pictures to weights of video: inflation (I3D, Carreira & Zisserman 2017, arXiv:1705.07750, sec. 2.2), and
from those of pictures to those of flow (TSN, Wang 2016, arXiv:1608.00859, sec. 3.2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from ssvid.errors import CheckpointError


def inflate_weights(
    state_2d: Mapping[str, Tensor], network_3d: Mapping[str, Tensor | Sequence[int]]
) -> dict[str, Tensor]:
    """Weights for a 3-D network from those of the 2-D network of the same keys.

    A kernel OIHW becomes OITHW: repeated T times over time and divided by T, so that a clip of one repeated picture
    gives the maps of that picture. Everything else is copied. Keys of ``state_2d`` that the 3-D network lacks (the
    classifier) are left out; those that only the 3-D network has are for ``load_state_dict`` to complain of.

    Args:
        state_2d: state dict of the 2-D network.
        network_3d: state dict of the 3-D network, or the shape of each of its keys.

    Raises:
        CheckpointError: no key is shared, or a shape is not that of the 2-D weight with time put in.
    """
    shapes = {key: tuple(v.shape if isinstance(v, Tensor) else v) for key, v in network_3d.items()}
    shared = {key: value for key, value in state_2d.items() if key in shapes}
    if not shared:
        raise CheckpointError(
            f"none of the {len(state_2d)} keys of the 2-D weights ({', '.join(list(state_2d)[:3])}) is one of the 3-D "
            "network's. Inflate weights of the same architecture, such as torchvision's resnet18 for i3d_resnet18."
        )
    return {key: _inflate(key, value, shapes[key]) for key, value in shared.items()}


def spread_channels(kernel: Tensor, in_channels: int) -> Tensor:
    """The kernel of a first convolution over pictures, OI..., for clips of another number of channels: the mean over the
    channels that it has, repeated. TSN's cross-modality initialization.
    """
    return kernel.mean(dim=1, keepdim=True).repeat_interleave(in_channels, dim=1)


def _inflate(key: str, weight: Tensor, shape: tuple[int, ...]) -> Tensor:
    flat = tuple(weight.shape)
    if flat == shape:
        return weight.clone()
    if len(shape) != 5 or flat != (*shape[:2], *shape[3:]):
        raise CheckpointError(
            f"{key} has shape {flat} in the 2-D weights and {shape} in the 3-D network, which is not that with time put in "
            "as third axis. Inflate weights of the same architecture and width."
        )
    return weight[:, :, None].expand(shape) / shape[2]
