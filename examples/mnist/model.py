"""The digit classifier: two convolutions, two linear layers, ten log-probabilities."""

import torch
from torch import nn


class Net(nn.Module):
    """A small CNN for digits.

    Input: float32 ``[N, 1, 28, 28]``, normalised with ``normalize``.
    Output: float32 ``[N, 10]`` log-probabilities.
    """

    def __init__(self) -> None:
        super().__init__()
        # Pooling before the ReLU gives the same values as after it, for a quarter of the work.
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, kernel_size=5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(16, 32, kernel_size=5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Flatten(),
            nn.Linear(512, 128),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(128, 10),
            nn.LogSoftmax(dim=1),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Log-probabilities of the ten digits for each image."""
        output: torch.Tensor = self.layers(images)
        return output


def normalize(images: torch.Tensor) -> torch.Tensor:
    """uint8 ``[N, 28, 28]`` -> float32 ``[N, 1, 28, 28]`` with MNIST's mean and deviation."""
    return images.unsqueeze(1).float().div_(255).sub_(0.1307).div_(0.3081)
