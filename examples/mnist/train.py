"""Train a digit classifier: what a user of the training image writes.

SageMaker passes the hyperparameters as arguments and everything else in ``SM_*`` variables.
"""

import argparse
import gc
import io
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dataset
import torch
import torch.distributed as dist
from model import normalize
from recipes import FastRecipe, Optimizer, Recipe
from torch.nn.functional import nll_loss

from byoc_training import plots
from byoc_training.checkpoint import Checkpoints, Stop, write_atomically
from byoc_training.tracker import Tracker

HERE = Path(__file__).parent


def arguments() -> argparse.Namespace:
    """Hyperparameters from the command line, directories from the environment."""
    env = os.environ.get
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument(
        "--fast", type=yes_or_no, default=False, help="the recipe for 99 %% in seconds"
    )
    parser.add_argument("--batch-size", type=int, help=f"default: {Recipe.batch_size}")
    parser.add_argument("--test-batch-size", type=int, default=1000)
    parser.add_argument("--lr", type=float, help="learning rate, default: the recipe's")
    parser.add_argument("--gamma", type=float, default=0.7, help="its factor after each epoch")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log-interval", type=int, default=200, help="batches")
    parser.add_argument("--training", type=Path, default=env("SM_CHANNEL_TRAINING"))
    parser.add_argument("--test", type=Path, default=env("SM_CHANNEL_TEST"))
    parser.add_argument("--model-dir", type=Path, default=env("SM_MODEL_DIR", "/opt/ml/model"))
    parser.add_argument(
        "--output-data-dir", type=Path, default=env("SM_OUTPUT_DATA_DIR", "/opt/ml/output/data")
    )
    parser.add_argument("--checkpoint-dir", type=Path, help="default: where the job keeps them")
    args = parser.parse_args()
    if args.training is None:
        parser.error("no training data: give the job a channel called training")
    if args.batch_size is None:
        args.batch_size = (FastRecipe if args.fast else Recipe).batch_size
    for name in ("epochs", "batch_size", "test_batch_size", "log_interval"):
        if getattr(args, name) < 1:
            parser.error(
                f"--{name.replace('_', '-')} must be at least 1, not {getattr(args, name)}"
            )
    return args


def yes_or_no(text: str) -> bool:
    """A hyperparameter that is on or off."""
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise argparse.ArgumentTypeError(f"expected true or false, not {text!r}")


def tensors(folder: Path, split: str, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (float32 ``[N, 1, 28, 28]``) and labels (int64 ``[N]``) of a channel.

    All of them, ready for use, where the network is: MNIST takes 220 MB so.
    """
    images, labels = dataset.load(folder, split)
    return (
        normalize(torch.tensor(images, device=device)),
        torch.tensor(labels, dtype=torch.int64, device=device),
    )


class Trainer:
    """One model, its data and its optimiser; ``run`` trains, tests and saves.

    Alone or as one of the ranks that torchrun has started: each takes its share of every batch.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        # Set by torchrun.
        self.rank = int(os.environ.get("RANK", "0"))
        self.world = int(os.environ.get("WORLD_SIZE", "1"))
        self.device = torch.device("cpu")
        if torch.cuda.is_available():
            self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            torch.cuda.set_device(self.device)
        torch.manual_seed(args.seed)
        self.train_images, self.train_labels = tensors(args.training, "train", self.device)
        self.test_images, self.test_labels = tensors(
            args.test or args.training, "t10k", self.device
        )
        self.recipe = (FastRecipe if args.fast else Recipe)(args.lr, args.gamma)
        layout: Any = {"memory_format": torch.channels_last}  # faster on the CPU
        self.net = self.recipe.net().to(self.device, **layout)
        self.model: torch.nn.Module = self.net
        if self.world > 1:
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
            self.model = torch.nn.parallel.DistributedDataParallel(self.net)
            torch.manual_seed(args.seed + self.rank)  # each drops other neurons
        self.optimizer: Optimizer = self.recipe.optimizer(self.net.parameters())
        self.epoch, self.step = 1, 0  # the next batch to train on
        self.confusion = torch.zeros(10, 10)  # how often a digit (row) was taken for which (column)
        self.tracker = Tracker("epoch", args.output_data_dir)
        self.checkpoints, self.stop = Checkpoints(args.checkpoint_dir, "checkpoint"), Stop()
        self.restore()

    def run(self) -> None:
        """Train, test after each epoch, save the model at the end or when told to stop."""
        while self.epoch <= self.args.epochs:
            started = time.monotonic()
            train_loss = self.train_epoch()
            if train_loss is None:
                self.say(f"Stopped in epoch {self.epoch} after {self.step} batches")
                break
            seconds = time.monotonic() - started
            loss, correct = self.test()
            total = len(self.test_labels)
            self.say(
                f"Test set: Average loss: {loss:.4f}, "
                f"Accuracy: {correct}/{total} ({100 * correct // total}%)"
            )
            metrics = {
                "train_loss": train_loss,
                "test_loss": loss,
                "test_accuracy": correct / total,
            }
            self.tracker.log({**metrics, "seconds": seconds}, step=self.epoch)
            self.epoch, self.step = self.epoch + 1, 0
            self.save_checkpoint()
        self.save_checkpoint()
        if self.rank == 0:
            self.save_model()
            self.save_pictures()
        self.tracker.close("FINISHED" if self.epoch > self.args.epochs else "KILLED")
        if self.world > 1:
            self.part()

    def part(self) -> None:
        """Leave the other ranks in an orderly way.

        Together, and with nothing left that holds the group: its threads would otherwise still
        run when the interpreter is taken down, which aborts the process now and then.
        """
        dist.barrier()
        self.model = self.net
        gc.collect()
        dist.destroy_process_group()

    def say(self, line: str) -> None:
        """Log a line once for all ranks: metrics are read from every host's log."""
        if self.rank == 0:
            print(line, flush=True)

    def total(self, *values: float) -> list[float]:
        """The sums over all ranks."""
        sums = torch.tensor(values, dtype=torch.float64)
        if self.world > 1:
            sums = sums.to(self.device)
            dist.all_reduce(sums)
        return sums.tolist()

    def order(self) -> tuple[torch.Tensor, ...]:
        """The batches of the epoch, the same on every rank and after a restart."""
        seed = (1_000_003 * self.args.seed + self.epoch) % 2**63
        generator = torch.Generator().manual_seed(seed)
        images = torch.randperm(len(self.train_labels), generator=generator)
        images = images[: math.ceil(self.recipe.share * len(images))]
        batches: tuple[torch.Tensor, ...] = images.split(self.args.batch_size)
        return batches

    def train_epoch(self) -> float | None:
        """Train from ``self.step`` to the end of the epoch: the mean loss of its batches.

        None when the job has been told to stop before.
        """
        self.model.train()
        order = self.order()
        losses = []
        total = sum(len(batch) for batch in order)
        for images, labels in self.batches(order[self.step :]):
            if self.stop.agreed():
                return None
            self.optimizer.param_groups[0]["lr"] = self.recipe.rate(
                self.epoch, self.step / len(order), self.args.epochs
            )
            self.optimizer.zero_grad()
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.bf16):
                output = self.model(images)
            # The ranks' gradients are averaged; their parts of a batch may differ by one image.
            loss = self.recipe.loss(output.float(), labels) / len(order[self.step])
            (loss * self.world).backward()
            self.optimizer.step()
            losses.append(loss.detach())
            self.step += 1
            if self.step % self.args.log_interval == 0:
                done = self.step * self.args.batch_size
                (whole,) = self.total(loss.item())
                self.say(
                    f"Train Epoch: {self.epoch} [{done}/{total} ({100 * done // total}%)]"
                    f"\tLoss: {whole:.6f}"
                )
        (loss_sum,) = self.total(torch.stack(losses).sum().item() if losses else 0.0)
        return loss_sum / max(1, len(losses))

    def batches(self, order: Sequence[torch.Tensor]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """This rank's part of each batch: images ``[N, 1, 28, 28]`` and labels ``[N]``."""
        for batch in order:
            part = batch[self.rank :: self.world]
            yield self.train_images[part], self.train_labels[part]

    @torch.inference_mode()
    def test(self) -> tuple[float, int]:
        """Mean loss and number of right answers on the test set, a part of it by each rank."""
        self.net.eval()
        loss, confusion = 0.0, torch.zeros(100, device=self.device)
        size = self.args.test_batch_size
        mine = slice(self.rank, None, self.world)
        for images, labels in zip(
            self.test_images[mine].split(size), self.test_labels[mine].split(size), strict=True
        ):
            output = self.net(images)
            loss += nll_loss(output, labels, reduction="sum").item()
            confusion += torch.bincount(10 * labels + output.argmax(dim=1), minlength=100)
        loss, *counts = self.total(loss, *confusion.tolist())
        self.confusion = torch.tensor(counts).reshape(10, 10)
        return loss / len(self.test_labels), int(self.confusion.trace())

    def save_checkpoint(self) -> None:
        """Everything needed to go on from this batch, when the job keeps checkpoints."""
        state = {
            "epoch": self.epoch,
            "step": self.step,
            "model": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": self.tracker.history(),
        }
        self.checkpoints.save((self.epoch - 1) * len(self.order()) + self.step, state)

    def restore(self) -> None:
        """Go on where ``save_checkpoint`` stood."""
        state = self.checkpoints.load()
        if state is None:
            return
        self.checkpoints.restore(state, model=self.net, optimizer=self.optimizer)
        self.epoch, self.step = state["epoch"], state["step"]
        self.tracker.restore(state["history"])

    def save_model(self) -> None:
        """The weights, and beside them in ``code/`` what the inference image needs to use them."""
        self.args.model_dir.mkdir(parents=True, exist_ok=True)
        code = self.args.model_dir / "code"
        code.mkdir(exist_ok=True)
        shutil.copyfile(HERE / "inference.py", code / "inference.py")
        shutil.copyfile(HERE / self.recipe.source, code / "model.py")
        weights = {name: value.cpu() for name, value in self.net.state_dict().items()}
        content = io.BytesIO()
        torch.save(weights, content)
        write_atomically(self.args.model_dir / "model.pth", content.getbuffer())
        self.tracker.log_model(self.args.model_dir)

    def save_pictures(self) -> None:
        """The run as pictures, beside its metrics, for ``output.tar.gz``."""
        folder = self.args.output_data_dir
        folder.mkdir(parents=True, exist_ok=True)
        if history := self.tracker.history():
            plots.training_curve(history, folder / "training-curve.png")
        if self.confusion.any():
            plots.confusion_matrix(self.confusion.tolist(), folder / "confusion-matrix.png")


if __name__ == "__main__":
    try:
        Trainer(arguments()).run()
    except (dataset.DatasetError, OSError) as error:
        sys.exit(f"train.py: {error}")
