"""The peer: the classic PyTorch recipe for MNIST, written from its published description.

https://github.com/pytorch/examples/tree/main/mnist (README and documented arguments): two
convolutions of 32 and 64 filters, two linear layers, dropout; batches of 64 from a DataLoader
whose dataset turns each image into a normalised tensor when it is asked for; Adadelta with a
learning rate of 1.0, times 0.7 after each epoch; the test set in batches of 1,000.

Prints ``epoch=1; train_seconds=…; test_loss=…; test_accuracy=…;`` a line for each epoch, and ends
after ``--epochs`` or once ``--until`` (accuracy) is reached.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "mnist"))
import dataset  # type: ignore[import-not-found] # the example's


class Digits(Dataset[tuple[torch.Tensor, int]]):
    """A split of MNIST, an image transformed when it is asked for."""

    def __init__(self, folder: Path, split: str) -> None:
        images, labels = dataset.load(folder, split)
        self.images, self.labels = images, labels.tolist()
        self.transform: Any = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def net() -> nn.Module:
    """The classic network."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Dropout(0.25), nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(128, 10), nn.LogSoftmax(dim=1),
    )  # fmt: skip


def train(model: nn.Module, loader: Any, optimizer: torch.optim.Optimizer) -> None:
    """One epoch."""
    model.train()
    for images, labels in loader:
        optimizer.zero_grad()
        loss: Any = functional.nll_loss(model(images), labels)
        loss.backward()
        optimizer.step()


def test(model: nn.Module, loader: Any) -> tuple[float, float]:
    """Mean loss and accuracy."""
    model.eval()
    loss, correct, count = 0.0, 0, 0
    with torch.no_grad():
        for images, labels in loader:
            output = model(images)
            loss += functional.nll_loss(output, labels, reduction="sum").item()
            correct += int((output.argmax(dim=1) == labels).sum())
            count += len(labels)
    return loss / count, correct / count


def main() -> None:
    """Train and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--until", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    training = DataLoader(Digits(args.folder, "train"), batch_size=64, shuffle=True)
    testing = DataLoader(Digits(args.folder, "t10k"), batch_size=1000)
    model = net()
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    scheduler = StepLR(optimizer, step_size=1, gamma=0.7)
    for epoch in range(1, args.epochs + 1):
        started = time.monotonic()
        train(model, training, optimizer)
        seconds = time.monotonic() - started
        scheduler.step()
        loss, accuracy = test(model, testing)
        print(
            f"epoch={epoch}; train_seconds={seconds:.2f}; test_loss={loss:.4f}; "
            f"test_accuracy={accuracy:.4f};",
            flush=True,
        )
        if accuracy >= args.until:
            break


if __name__ == "__main__":
    main()
