"""Train a digit classifier: what a user of the training image writes.

SageMaker passes the hyperparameters as arguments and everything else in ``SM_*`` variables.
"""

import argparse
import gc
import io
import json
import os
import shutil
import sys
import time
from pathlib import Path

import dataset
import torch
import torch.distributed as dist
from model import Net, normalize
from torch.nn.functional import nll_loss

from byoc_training.checkpoint import Checkpoints, Stop, write_atomically

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
    parser.add_argument("--checkpoint-dir", type=Path, help="default: where the job keeps them")
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
        self.train_images, self.train_labels = tensors(args.training, "train")
        self.test_images, self.test_labels = tensors(args.test or args.training, "t10k")
        self.net = Net().to(self.device)
        self.model: torch.nn.Module = self.net
        if self.world > 1:
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
            self.model = torch.nn.parallel.DistributedDataParallel(self.net)
            torch.manual_seed(args.seed + self.rank)  # each drops other neurons
        self.optimizer = torch.optim.Adadelta(self.net.parameters(), lr=args.lr)
        self.epoch, self.step = 1, 0  # the next batch to train on
        self.history: list[dict[str, float]] = []
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
            self.say(
                f"epoch={self.epoch}; train_loss={train_loss:.4f}; test_loss={loss:.4f}; "
                f"test_accuracy={correct / total:.4f}; seconds={seconds:.1f};"
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
        if self.rank == 0:
            self.save_model()
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
        batches: tuple[torch.Tensor, ...] = images.split(self.args.batch_size)
        return batches

    def train_epoch(self) -> float | None:
        """Train from ``self.step`` to the end of the epoch: the mean loss of its batches.

        None when the job has been told to stop before.
        """
        self.model.train()
        size, order = self.args.batch_size, self.order()
        losses = []
        for batch in order[self.step :]:
            if self.stop.agreed():
                return None
            part = batch[self.rank :: self.world]
            images = normalize(self.train_images[part].to(self.device))
            labels = self.train_labels[part].to(self.device)
            self.set_learning_rate(self.step / len(order))
            self.optimizer.zero_grad()
            # The ranks' gradients are averaged; their parts of a batch may differ by one image.
            loss = nll_loss(self.model(images), labels, reduction="sum") / len(batch)
            (loss * self.world).backward()
            self.optimizer.step()
            losses.append(loss.detach())
            self.step += 1
            if self.step % self.args.log_interval == 0:
                done, total = self.step * size, len(self.train_labels)
                (whole,) = self.total(loss.item())
                self.say(
                    f"Train Epoch: {self.epoch} [{done}/{total} ({100 * done // total}%)]"
                    f"\tLoss: {whole:.6f}"
                )
        (loss_sum,) = self.total(torch.stack(losses).sum().item() if losses else 0.0)
        return loss_sum / max(1, len(losses))

    def set_learning_rate(self, progress: float) -> None:
        """``lr``, times ``gamma`` for each epoch done, falling to zero over the last epoch."""
        rate = self.args.lr * self.args.gamma ** (self.epoch - 1)
        if self.epoch == self.args.epochs:
            rate *= 1 - progress
        self.optimizer.param_groups[0]["lr"] = rate

    @torch.inference_mode()
    def test(self) -> tuple[float, int]:
        """Mean loss and number of right answers on the test set, a part of it by each rank."""
        self.net.eval()
        loss, correct = 0.0, 0
        size = self.args.test_batch_size
        mine = slice(self.rank, None, self.world)
        for images, labels in zip(
            self.test_images[mine].split(size), self.test_labels[mine].split(size), strict=True
        ):
            output = self.net(normalize(images.to(self.device))).cpu()
            loss += nll_loss(output, labels, reduction="sum").item()
            correct += int((output.argmax(dim=1) == labels).sum())
        loss, right = self.total(loss, correct)
        return loss / len(self.test_labels), int(right)

    def save_checkpoint(self) -> None:
        """Everything needed to go on from this batch, when the job keeps checkpoints."""
        state = {
            "epoch": self.epoch,
            "step": self.step,
            "model": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
        }
        self.checkpoints.save((self.epoch - 1) * len(self.order()) + self.step, state)

    def restore(self) -> None:
        """Go on where ``save_checkpoint`` stood."""
        state = self.checkpoints.load()
        if state is None:
            return
        self.checkpoints.restore(state, model=self.net, optimizer=self.optimizer)
        self.epoch, self.step, self.history = state["epoch"], state["step"], state["history"]

    def save_model(self) -> None:
        """The weights, and beside them in ``code/`` what the inference image needs to use them."""
        self.args.model_dir.mkdir(parents=True, exist_ok=True)
        code = self.args.model_dir / "code"
        code.mkdir(exist_ok=True)
        for name in ("inference.py", "model.py"):
            shutil.copyfile(HERE / name, code / name)
        weights = {name: value.cpu() for name, value in self.net.state_dict().items()}
        content = io.BytesIO()
        torch.save(weights, content)
        write_atomically(self.args.model_dir / "model.pth", content.getbuffer())
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
