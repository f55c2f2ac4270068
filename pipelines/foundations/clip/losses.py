"""What the small Chinese-CLIP is trained for: to match, to mean something at a threshold, and to know words.

    loss = contrastive + calibration_weight * calibration + word_weight * words

Contrastive: InfoNCE over the batch (Radford et al. 2021), the hard negatives in the images' denominator.
Calibration: around the threshold t, softplus(-s (cos - t)) where caption and image fit and softplus(s (cos - t))
where not (the pairwise sigmoid of Zhai et al. 2023, its bias fixed), each kind of pair averaged by itself:
the contrastive loss only ranks captions, while the filter compares each cosine with 0.18.
Words: a linear layer tells from an embedding which word pieces stand in the caption, rare ones weighted more
(after Huang et al. 2024, "Classification done right for vision-language pre-training"). Trained from
nothing, the contrastive loss stands still for long until the image encoder sees anything; this makes it see.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipelines.foundations.clip.spec import ClipTraining

_RAREST = 1e-4
"""Share of captions below which a piece gets no more weight."""


def matching_loss(
    images: Tensor, captions: Tensor, negatives: Tensor, scale: Tensor, training: ClipTraining
) -> Tensor:
    """Contrastive and calibration loss of unit embeddings: images (B + blanks, C), captions (B, C), negatives (B K, C).

    Row i of `captions` fits row i of `images`; rows i K to i K + K - 1 of `negatives` nearly do. No caption
    fits an image beyond the first B. `scale` is the inverse temperature.
    """
    size = len(captions)
    cosines = images @ torch.cat([captions, negatives]).T
    fitting = torch.arange(size)
    contrastive = functional.cross_entropy(scale * cosines[:size], fitting)
    contrastive = (contrastive + functional.cross_entropy(scale * cosines[:, :size].T, fitting)) / 2

    logits = training.calibration_scale * (cosines - training.threshold)
    own_negatives = logits[:size, size:].reshape(size, size, -1)[fitting, fitting]
    others = logits[:, :size].masked_select(~torch.eye(len(images), size, dtype=torch.bool))
    calibration = (
        training.fitting_weight * functional.softplus(-logits[fitting, fitting]).mean()
        + functional.softplus(own_negatives).mean()
        + functional.softplus(others).mean()
    )
    if len(images) > size:
        calibration = calibration + functional.softplus(logits[size:]).mean()
    return contrastive + training.calibration_weight * calibration


class WordHead(nn.Module):
    """Tells from an embedding which word pieces stand in the caption. Left behind after training."""

    def __init__(self, width: int, texts: Tensor, pieces: int) -> None:
        """`texts`: all that will be asked about, as places (N, T) among so many pieces."""
        super().__init__()
        present = torch.zeros(len(texts), pieces).scatter_(1, texts, 1.0).mean(dim=0)
        # Inverse document frequency: a piece that stands in every text, as padding does, tells nothing.
        self.weight = -present.clamp(min=_RAREST).log()
        self.linear = nn.Linear(width, pieces)

    def forward(self, states: Tensor, texts: Tensor) -> Tensor:
        """The loss of embeddings (B, width) against the pieces of texts (B, T)."""
        target = torch.zeros(len(texts), len(self.weight)).scatter_(1, texts, 1.0) * self.weight
        target = target / target.sum(dim=1, keepdim=True).clamp(min=_RAREST)
        return functional.cross_entropy(self.linear(states).float(), target)
