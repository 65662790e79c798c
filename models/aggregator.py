"""The transformer that mixes the features of several experts into one."""

from torch import Tensor, nn

from tta.errors import InputError


class Attention(nn.Module):
    """Multi-head self-attention in plain operations, so that it can be differentiated twice on every device.

    Fused kernels of scaled dot product attention have no second derivative.

    Args:
        width: Size D of a token.
        heads: Number of heads; must divide D.
        dropout: Dropout rate of the output.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Sequential(nn.Linear(width, width), nn.Dropout(dropout))

    def forward(self, tokens: Tensor) -> Tensor:
        """Attend among the tokens of a sample, ``(B, N, D)`` to ``(B, N, D)``."""
        batch, count, width = tokens.shape
        parts = self.qkv(tokens).view(batch, count, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        weights = (query @ key.transpose(2, 3) * (width // self.heads) ** -0.5).softmax(dim=3)
        mixed: Tensor = self.out((weights @ value).transpose(1, 2).reshape(batch, count, width))
        return mixed


class Block(nn.Module):
    """A pre-norm transformer block: attention, then a perceptron of hidden size 2 D with GELU.

    Args:
        width: Size D of a token.
        heads: Number of heads.
        dropout: Dropout rate.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.LayerNorm(width), Attention(width, heads, dropout))
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * width, width),
            nn.Dropout(dropout),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens ``(B, N, D)`` to tokens ``(B, N, D)``."""
        tokens = tokens + self.attention(tokens)
        result: Tensor = tokens + self.mlp(tokens)
        return result


class Aggregator(nn.Module):
    """Mix one token per expert into one feature vector: transformer blocks, then the mean over tokens.

    There is no positional encoding, so any number of experts in any order will do. The head serves only to train the
    aggregator by itself, before the student.

    Args:
        width: Size D of the experts' features.
        num_classes: Size of the head's output.
        depth: Number of blocks, at least 1.
        heads: Attention heads; must divide ``width``.
        dropout: Dropout rate, in ``[0, 1)``.

    Raises:
        InputError: If an argument is out of range.

    References:
        Meta-DMoE: Adapting to Domain Shift by Meta-Distillation from Mixture-of-Experts, NeurIPS 2022, section 4.2,
        https://arxiv.org/abs/2210.03885; sizes as in the authors' code.
    """

    def __init__(self, width: int, num_classes: int, depth: int = 1, heads: int = 16, dropout: float = 0.1) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            allowed = ", ".join(str(count) for count in range(1, min(width, 64) + 1) if width % count == 0)
            raise InputError(f"heads={heads}: must divide the {width} features of an expert; choose from {allowed}")
        if depth < 1 or not 0.0 <= dropout < 1.0:
            raise InputError(f"depth={depth}, dropout={dropout}: need depth >= 1 and 0 <= dropout < 1")
        self.blocks = nn.Sequential(*(Block(width, heads, dropout) for _ in range(depth)))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, num_classes))

    def forward(self, tokens: Tensor) -> Tensor:
        """One feature vector per sample, ``(B, D)``, of tokens ``(B, N, D)``, ``N >= 1``."""
        mixed: Tensor = self.blocks(tokens).mean(dim=1)
        return mixed
