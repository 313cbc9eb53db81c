"""The network of all servers: two convolutions, two linear layers, ten log-probabilities."""

import torch
from torch import nn


class Net(nn.Module):
    """A small CNN for digits.

    Input: float32 ``[N, 1, 28, 28]``, normalised with ``normalize``.
    Output: float32 ``[N, 10]`` log-probabilities.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 32, kernel_size=3),
            nn.ReLU(),
            nn.Conv2d(32, 64, kernel_size=3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout(0.25),
            nn.Flatten(),
            nn.Linear(9216, 128),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(128, 10),
            nn.LogSoftmax(dim=1),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Log-probabilities of the ten digits for each image."""
        output: torch.Tensor = self.layers(images)
        return output


def normalize(images: torch.Tensor) -> torch.Tensor:
    """uint8 ``[N, 28, 28]`` -> float32 ``[N, 1, 28, 28]`` with MNIST's mean and deviation."""
    return (images.unsqueeze(1).float() / 255 - 0.1307) / 0.3081
