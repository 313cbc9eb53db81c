"""The digit classifier of ``--fast``: three convolutions with batch norm, one linear layer.

Lies in the model's folder as model.py, so it needs no other file.
"""

import torch
from torch import nn


class Net(nn.Module):
    """A small CNN for digits that learns in seconds.

    Input: float32 ``[N, 1, 28, 28]``, normalised with ``normalize``.
    Output: float32 ``[N, 10]`` log-probabilities.
    """

    def __init__(self) -> None:
        super().__init__()
        # Batch norm after the pooling has a quarter of the values to look at.
        self.layers = nn.Sequential(
            nn.Conv2d(1, 12, kernel_size=5, bias=False),
            nn.MaxPool2d(2),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.Conv2d(12, 48, kernel_size=5, bias=False),
            nn.MaxPool2d(2),
            nn.BatchNorm2d(48),
            nn.ReLU(),
            nn.Conv2d(48, 96, kernel_size=3, bias=False),
            nn.BatchNorm2d(96),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(384, 10),
            nn.LogSoftmax(dim=1),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Log-probabilities of the ten digits for each image."""
        output: torch.Tensor = self.layers(images)
        return output


def normalize(images: torch.Tensor) -> torch.Tensor:
    """uint8 ``[N, 28, 28]`` -> float32 ``[N, 1, 28, 28]`` with MNIST's mean and deviation."""
    return images.unsqueeze(1).float().div_(255).sub_(0.1307).div_(0.3081)
