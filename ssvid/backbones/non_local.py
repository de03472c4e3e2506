"""Non-local blocks: each cell of a map sees all others (Wang 2018, arXiv:1711.07971), put between the blocks of a ResNet."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from ssvid.backbones.pooling import RoundUpMaxPool3d

Places = Mapping[str, tuple[int, ...]]  # layer -> numbers of the blocks after which a non-local block stands


class NonLocalBlock(nn.Module):
    """y_i = sum_j softmax_j(theta(x_i) . phi(x_j) / sqrt(C/2)) g(x_j), then x + norm(out(y)). BCTHW to BCTHW.

    The embedded Gaussian of sec. 3.2 with the bottleneck and the subsampling of sec. 3.3: theta, phi and g are 1x1x1
    convolutions to half the channels; phi and g see maxima of 1x2x2 cells. The scale of the last normalization starts
    at 0, so that a fresh block is the identity (sec. 4.1).

    Differs: the products are divided by the square root of the inner channels, as in the code of SlowFast; the paper
    does not. Maxima of an odd side are rounded up, so that every cell is seen.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 2
        self.theta, self.phi, self.g = (nn.Conv3d(channels, inner, 1) for _ in range(3))
        self.pool = RoundUpMaxPool3d((1, 2, 2))
        self.out = nn.Conv3d(inner, channels, 1)
        self.norm = nn.BatchNorm3d(channels)
        for convolution in (self.theta, self.phi, self.g, self.out):
            nn.init.normal_(convolution.weight, std=0.01)  # as in the authors' code
            if convolution.bias is not None:
                nn.init.zeros_(convolution.bias)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Attend and add."""
        coarse = self.pool(x_BCTHW)
        queries, keys, values = (_as_tokens(part) for part in (self.theta(x_BCTHW), self.phi(coarse), self.g(coarse)))
        seen_BND = F.scaled_dot_product_attention(queries, keys, values)
        y_BCTHW = seen_BND.squeeze(1).transpose(1, 2).unflatten(2, x_BCTHW.shape[2:])
        return x_BCTHW + self.norm(self.out(y_BCTHW))


def _as_tokens(map_BCTHW: Tensor) -> Tensor:
    """B1ND: one head of N cells."""
    return map_BCTHW.flatten(2).transpose(1, 2)[:, None]


def add_non_local_blocks(network: nn.Module, places: Places) -> None:
    """Put non-local blocks into the layers of a ResNet, in place.

    The one after block 3 of a layer has the keys ``layer.non_local3.*``; no other key moves, so that weights of the network
    without fill all but these.
    """
    for layer, numbers in places.items():
        blocks = network.get_submodule(layer)
        modules: OrderedDict[str, nn.Module] = OrderedDict()
        for name, block in blocks.named_children():
            modules[name] = block
            if int(name) in numbers:
                modules[f"non_local{name}"] = NonLocalBlock(_channels_after(block))
        setattr(network, layer, nn.Sequential(modules))


def _channels_after(block: nn.Module) -> int:
    """Channels of a block's map: those of its last normalization, which its shortcut shares."""
    return [module for module in block.modules() if isinstance(module, nn.BatchNorm3d)][-1].num_features
