"""A maximum over blocks of cells that needs no whole number of blocks."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class RoundUpMaxPool3d(nn.Module):
    """Maximum over blocks of cells; the last block of an axis may be cut short, so that n cells give ceil(n / block).

    The same as ``MaxPool3d(block, ceil_mode=True)``, from whose rule for the last block torch.export draws conditions on
    the size of the input. block: cells in T, H, W.
    """

    def __init__(self, block: tuple[int, int, int]) -> None:
        super().__init__()
        self.block = block

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Pool."""
        time, height, width = (cells - 1 for cells in self.block)
        padded = F.pad(x_BCTHW, (0, width, 0, height, 0, time), value=float("-inf"))
        return F.max_pool3d(padded, self.block, self.block)

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        return f"block={self.block}"
