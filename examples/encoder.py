"""torch's own transformer encoder over the rows of a picture of 28 x 28.

edgeprune run --data mnist --model examples/encoder.py:Rows --max-latency 0.6x
"""

import torch
from torch import Tensor, nn


class Rows(nn.Module):
    """Rows are words: embedded, given their place, encoded; the mean of all is classified."""

    def __init__(self, width: int = 64, heads: int = 4, depth: int = 2) -> None:
        super().__init__()
        self.embed, self.place = nn.Linear(28, width), nn.Parameter(0.02 * torch.randn(1, 28, width))
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 10)."""
        return self.head(self.encoder(self.embed(x.squeeze(1)) + self.place).mean(1))
