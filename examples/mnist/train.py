"""Train a digit classifier: what a user of the training image writes.

SageMaker passes the hyperparameters as arguments and everything else in ``SM_*`` variables.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import checkpoint
import dataset
import torch
from model import Net, normalize
from torch.nn.functional import nll_loss

HERE = Path(__file__).parent


def arguments() -> argparse.Namespace:
    """Hyperparameters from the command line, directories from the environment."""
    env = os.environ.get
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--test-batch-size", type=int, default=1000)
    parser.add_argument("--lr", type=float, default=1.0, help="learning rate of Adadelta")
    parser.add_argument("--gamma", type=float, default=0.7, help="its factor after each epoch")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log-interval", type=int, default=200, help="batches")
    parser.add_argument("--training", type=Path, default=env("SM_CHANNEL_TRAINING"))
    parser.add_argument("--test", type=Path, default=env("SM_CHANNEL_TEST"))
    parser.add_argument("--model-dir", type=Path, default=env("SM_MODEL_DIR", "/opt/ml/model"))
    parser.add_argument(
        "--output-data-dir", type=Path, default=env("SM_OUTPUT_DATA_DIR", "/opt/ml/output/data")
    )
    parser.add_argument(
        "--checkpoint-dir", type=Path, default=env("SM_CHECKPOINT_DIR", "/opt/ml/checkpoints")
    )
    args = parser.parse_args()
    if args.training is None:
        parser.error("no training data: give the job a channel called training")
    for name in ("epochs", "batch_size", "test_batch_size", "log_interval"):
        if getattr(args, name) < 1:
            parser.error(
                f"--{name.replace('_', '-')} must be at least 1, not {getattr(args, name)}"
            )
    return args


def tensors(folder: Path, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (uint8 ``[N, 28, 28]``) and labels (int64 ``[N]``) of a channel."""
    images, labels = dataset.load(folder, split)
    return torch.tensor(images), torch.tensor(labels, dtype=torch.int64)


class Trainer:
    """One model, its data and its optimiser; ``run`` trains, tests and saves."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.manual_seed(args.seed)
        self.train_images, self.train_labels = tensors(args.training, "train")
        self.test_images, self.test_labels = tensors(args.test or args.training, "t10k")
        self.model = Net().to(self.device)
        self.optimizer = torch.optim.Adadelta(self.model.parameters(), lr=args.lr)
        self.epoch, self.step = 1, 0  # the next batch to train on
        self.history: list[dict[str, float]] = []
        self.stopping = False
        signal.signal(signal.SIGTERM, self.stop)
        if args.checkpoint_dir.is_dir() and (state := checkpoint.load(args.checkpoint_dir)):
            self.restore(state)

    def stop(self, *_: object) -> None:
        """SIGTERM: the job is being stopped; finish the current batch and save."""
        self.stopping = True

    def run(self) -> None:
        """Train, test after each epoch, save the model at the end or when told to stop."""
        while self.epoch <= self.args.epochs:
            started = time.monotonic()
            train_loss = self.train_epoch()
            if self.stopping:
                print(f"Stopped in epoch {self.epoch} after {self.step} batches", flush=True)
                break
            seconds = time.monotonic() - started
            loss, correct = self.test()
            total = len(self.test_labels)
            print(
                f"Test set: Average loss: {loss:.4f}, "
                f"Accuracy: {correct}/{total} ({100 * correct // total}%)"
            )
            print(
                f"epoch={self.epoch}; train_loss={train_loss:.4f}; test_loss={loss:.4f}; "
                f"test_accuracy={correct / total:.4f}; seconds={seconds:.1f};",
                flush=True,
            )
            self.history.append(
                {
                    "epoch": self.epoch,
                    "train_loss": train_loss,
                    "test_loss": loss,
                    "test_accuracy": correct / total,
                }
            )
            self.epoch, self.step = self.epoch + 1, 0
            self.save_checkpoint()
        self.save_checkpoint()
        self.save_model()

    def train_epoch(self) -> float:
        """Train from ``self.step`` to the end of the epoch; the mean loss of its batches."""
        self.model.train()
        size = self.args.batch_size
        order = torch.randperm(
            len(self.train_labels),
            generator=torch.Generator().manual_seed(
                (1_000_003 * self.args.seed + self.epoch) % 2**63
            ),
        ).split(size)
        losses = []
        for batch in order[self.step :]:
            images = normalize(self.train_images[batch].to(self.device))
            labels = self.train_labels[batch].to(self.device)
            self.set_learning_rate(self.step / len(order))
            self.optimizer.zero_grad()
            loss = nll_loss(self.model(images), labels)
            loss.backward()
            self.optimizer.step()
            losses.append(loss.detach())
            self.step += 1
            if self.step % self.args.log_interval == 0:
                done, total = self.step * size, len(self.train_labels)
                print(
                    f"Train Epoch: {self.epoch} [{done}/{total} ({100 * done // total}%)]"
                    f"\tLoss: {loss.item():.6f}",
                    flush=True,
                )
            if self.stopping:
                break
        return torch.stack(losses).mean().item() if losses else float("nan")

    def set_learning_rate(self, progress: float) -> None:
        """``lr``, times ``gamma`` for each epoch done, falling to zero over the last epoch."""
        rate = self.args.lr * self.args.gamma ** (self.epoch - 1)
        if self.epoch == self.args.epochs:
            rate *= 1 - progress
        self.optimizer.param_groups[0]["lr"] = rate

    @torch.inference_mode()
    def test(self) -> tuple[float, int]:
        """Mean loss and number of right answers on the test set."""
        self.model.eval()
        loss, correct = 0.0, 0
        size = self.args.test_batch_size
        for images, labels in zip(
            self.test_images.split(size), self.test_labels.split(size), strict=True
        ):
            output = self.model(normalize(images.to(self.device))).cpu()
            loss += nll_loss(output, labels, reduction="sum").item()
            correct += int((output.argmax(dim=1) == labels).sum())
        return loss / len(self.test_labels), correct

    def save_checkpoint(self) -> None:
        """Everything needed to go on from this batch, when the job keeps checkpoints."""
        if not self.args.checkpoint_dir.is_dir():
            return
        state = {
            "epoch": self.epoch,
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
            "random": torch.get_rng_state(),
        }
        checkpoint.save(self.args.checkpoint_dir, state)

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where ``save_checkpoint`` stood."""
        self.epoch, self.step, self.history = state["epoch"], state["step"], state["history"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])

    def save_model(self) -> None:
        """The weights, and beside them in ``code/`` what the inference image needs to use them."""
        self.args.model_dir.mkdir(parents=True, exist_ok=True)
        code = self.args.model_dir / "code"
        code.mkdir(exist_ok=True)
        for name in ("inference.py", "model.py"):
            shutil.copyfile(HERE / name, code / name)
        weights = {name: value.cpu() for name, value in self.model.state_dict().items()}
        checkpoint.write_atomically(self.args.model_dir / "model.pth", weights)
        self.save_history()

    def save_history(self) -> None:
        """Metrics as JSON lines and as a picture, for ``output.tar.gz``."""
        self.args.output_data_dir.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(entry) + "\n" for entry in self.history)
        (self.args.output_data_dir / "metrics.jsonl").write_text(lines)
        if self.history:
            import plots  # noqa: PLC0415 - matplotlib is slow to import and needed only here

            plots.training_curve(self.history, self.args.output_data_dir / "training-curve.png")


if __name__ == "__main__":
    try:
        Trainer(arguments()).run()
    except (dataset.DatasetError, OSError) as error:
        sys.exit(f"train.py: {error}")
