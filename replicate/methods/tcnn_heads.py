"""Tweaking by fine-tuning, §3.1 of TCNN (Wu, Hassner, Kim, Medioni and Natarajan, "Facial Landmark Detection with Tweaked Convolutional Neural Networks"):
all heads are trained together on what enters them, as one batched computation, each with its own images, its own validation and its own end.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import pad

from replicate.errors import ReplicateError
from replicate.faces.augment import seeded
from replicate.methods import tcnn
from replicate.methods.tcnn import Heads, Mixture, TCNNConfig
from replicate.methods.tcnn_augmentation import CHUNK, Pools
from replicate.progress import progress_bar
from replicate.store import StoredModel
from replicate.training import FitReport, read_metadata, with_prefix, write_tensors

CHECKPOINT_SECONDS = 120.0


class Tweaking(NamedTuple):
    """What became of each cluster (K,), kept beside the heads.

    Attributes
    ----------
    faces : Tensor
        Training faces.
    images : Tensor
        Images after augmentation.
    drawn, kept : Tensor
        See `Pools`.
    validating : Tensor
        Faces that validate its head.
    epochs : Tensor
        Epochs until its fine-tuning ended, `patience` after the best one.
    loss_before, loss_after : Tensor
        Validation loss, Eq. 1, of the vanilla weights and of the best ones.
    fit_before, fit_after : Tensor
        The same loss on the images that the head learns from.
    """

    faces: Tensor
    images: Tensor
    drawn: Tensor
    kept: Tensor
    validating: Tensor
    epochs: Tensor
    loss_before: Tensor
    loss_after: Tensor
    fit_before: Tensor
    fit_after: Tensor

    @classmethod
    def of(cls, model: StoredModel) -> "Tweaking":
        """From the stored model of heads."""
        return cls(**with_prefix(model.tensors, "tweaking."))


@torch.inference_mode()
def fit_of(heads: Heads, pools: Pools) -> Tensor:
    """Mean loss (K,), Eq. 1, of each head on its own images; zero for one that has none."""
    owner = torch.arange(len(heads), device=pools.sizes.device).repeat_interleave(pools.sizes)
    parts = zip(pools.features.split(CHUNK), pools.shapes.split(CHUNK), owner.split(CHUNK), strict=True)
    losses = torch.cat([tcnn.loss(heads.routed(x.float(), own), true) for x, true, own in parts])
    return owner.bincount(losses, len(heads)) / pools.sizes.clamp_min(1)


def validating_faces(mixture: Mixture, features: Tensor, least: int) -> list[Tensor]:
    """Which faces validate each head: those of its cluster; where these are fewer than `least`, the likeliest ones of the component."""
    joint = mixture.log_joint(features)
    cluster, few = joint.argmax(1), min(least, len(features))
    found = []
    for k in range(len(mixture)):
        own = (cluster == k).nonzero()[:, 0]
        found.append(own if len(own) >= few else joint[:, k].topk(few).indices)
    return found


class Batches(NamedTuple):
    """Which images enter which step of which head: (steps, K, b), and whether there is one."""

    index: Tensor
    present: Tensor


def epoch_batches(sizes: Tensor, batch: int, generator: torch.Generator) -> Batches:
    """Every image of every cluster once, in random order, in as many steps for all heads; small clusters have small batches.

    Parameters
    ----------
    sizes : Tensor
        (K,) images of each cluster; images are numbered cluster by cluster.
    """
    owner = torch.arange(len(sizes)).repeat_interleave(sizes.cpu())
    order = (owner + torch.rand(len(owner), generator=generator, dtype=torch.float64)).argsort()
    place = torch.arange(len(owner)) - (sizes.cumsum(0) - sizes).cpu()[owner]
    steps = -(-int(sizes.max()) // batch)
    index = torch.zeros(steps, len(sizes), -(-int(sizes.max()) // steps), dtype=torch.long)
    present = torch.zeros(index.shape, dtype=torch.bool)
    where = (place % steps, owner, place // steps)
    index[where], present[where] = order, True
    return Batches(index.to(sizes.device), present.to(sizes.device))


def fit_heads(
    heads: Heads,
    pools: Pools,
    features: Tensor,
    shapes: Tensor,
    validating: Sequence[Tensor],
    config: TCNNConfig,
    seed: int,
    checkpoint: Path,
) -> tuple[FitReport, dict[str, Tensor]]:
    """Train all heads together; leave each as it was when its validation loss was lowest, the vanilla weights included.

    A head has ended when its validation loss has not fallen for `config.patience` epochs; the others go on without regard to it.

    Parameters
    ----------
    features, shapes : Tensor
        (V, D) and (V, 5, 2) of the faces that validate.
    validating : sequence of Tensor
        For each head, which of these.

    Returns
    -------
    FitReport, dict of str to Tensor
        With the mean validation loss after each epoch, and `epochs`, `loss_before` and `loss_after` of each head.
    """
    widest = max(map(len, validating))
    checked = torch.stack([pad(index, (0, widest - len(index))) for index in validating])
    sizes = torch.tensor([len(index) for index in validating], device=checked.device)
    present = torch.arange(widest, device=checked.device) < sizes[:, None]

    def validate() -> Tensor:
        with torch.inference_mode():
            return _masked_mean(tcnn.loss(heads(features[checked]), shapes[checked]), present)

    fine = _FineTuning(heads, config, validate(), checkpoint)
    with progress_bar() as progress:
        bar = progress.add_task(f"TCNN, {len(heads)} heads, seed {seed}", total=None, remark="")
        while fine.running.any() and fine.epoch < config.epochs:
            batches = epoch_batches(pools.sizes, config.batch, seeded(seed, 2, fine.epoch))
            which = slice(None) if fine.running.all() else fine.running.nonzero()[:, 0]
            for index, there in zip(*(part[:, which] for part in batches), strict=True):
                with torch.autocast(index.device.type, torch.bfloat16):
                    predicted = heads(pools.features[index], which)
                losses = tcnn.loss(predicted, pools.shapes[index])
                fine.descend(_masked_mean(losses, there).sum())
            fine.end_epoch(validate())
            progress.update(bar, completed=fine.epoch, remark=f"{int(fine.running.sum())} running")
    return fine.finish(int(pools.sizes.sum()))


def _masked_mean(values: Tensor, present: Tensor) -> Tensor:
    """Mean of values (K, n) where present, (K,); zero where none is."""
    return (values * present).sum(1) / present.sum(1).clamp_min(1)


class _FineTuning:
    """The state of all heads: Adam, the best weights of each, and how long it has gone without better ones."""

    def __init__(self, heads: Heads, config: TCNNConfig, before: Tensor, checkpoint: Path) -> None:
        self.heads, self.config, self.checkpoint = heads, config, checkpoint
        self.parameters = dict(heads.named_parameters())
        self.optimiser = torch.optim.Adam(self.parameters.values(), lr=config.step_size, fused=True)
        self.best = {name: value.detach().clone() for name, value in self.parameters.items()}
        self.before, self.lowest = before, before.clone()
        self.best_epoch = torch.zeros(len(heads), dtype=torch.long, device=before.device)
        self.report = FitReport()
        self._resume()
        self.started, self.saved = time.perf_counter() - self.report.seconds, time.perf_counter()

    @property
    def epoch(self) -> int:
        return self.report.steps

    @property
    def running(self) -> Tensor:
        """(K,) bool: the heads that have not ended."""
        return self.epoch - self.best_epoch < self.config.patience

    def descend(self, loss: Tensor) -> None:
        """One step of every head; the gradient of a sum of losses is that of each."""
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()

    def end_epoch(self, losses: Tensor) -> None:
        """Take note of the validation losses (K,) after an epoch; of a head that has ended, nothing counts any more.

        Raises
        ------
        ReplicateError
            If a loss is not finite.
        """
        bad = ~losses.isfinite() & self.running
        if bad.any():
            raise ReplicateError(
                f"TCNN: the validation loss of head {int(bad.nonzero()[0])} is not finite after "
                f"{self.epoch + 1} epochs; lower the step size ({self.config.step_size})"
            )
        better = (losses < self.lowest) & self.running
        self.report.steps += 1
        self.best_epoch[better], self.lowest[better] = self.epoch, losses[better]
        for name, value in self.parameters.items():
            self.best[name][better] = value.detach()[better]
        self.report.history.append((self.epoch, self.lowest.mean().item()))
        self.report.seconds = time.perf_counter() - self.started
        if time.perf_counter() - self.saved > CHECKPOINT_SECONDS:
            self._save()

    def finish(self, images: int) -> tuple[FitReport, dict[str, Tensor]]:
        """Give every head its best weights; the report, whose samples are those of all epochs, and what became of the heads."""
        self.heads.load_state_dict(self.best)
        report = self.report
        report.best_error, report.best_step = self.lowest.mean().item(), int(self.best_epoch.max())
        report.samples = images * report.steps
        report.stopped = "all heads ended" if not self.running.any() else "most epochs reached"
        self.checkpoint.unlink(missing_ok=True)
        epochs = (self.best_epoch + self.config.patience).clamp_max(self.epoch)
        return report, {"epochs": epochs, "loss_before": self.before, "loss_after": self.lowest}

    def _save(self) -> None:
        tensors = {f"now.{name}": value.detach() for name, value in self.parameters.items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        for name, value in self.parameters.items():
            tensors |= {f"adam.{key}.{name}": held for key, held in self.optimiser.state[value].items()}
        tensors |= {"before": self.before, "lowest": self.lowest, "best_epoch": self.best_epoch}
        about = {"report": json.dumps(asdict(self.report))}
        write_tensors(self.checkpoint, {name: value.contiguous() for name, value in tensors.items()}, about)
        self.saved = time.perf_counter()

    def _resume(self) -> None:
        """Take up an unfinished run, if there is one."""
        if not self.checkpoint.exists():
            return
        tensors = load_file(self.checkpoint, device=str(self.before.device))
        self.heads.load_state_dict(with_prefix(tensors, "now."))
        self.best = with_prefix(tensors, "best.")
        for name, value in self.parameters.items():
            self.optimiser.state[value] = {
                key: tensors[f"adam.{key}.{name}"] for key in ("step", "exp_avg", "exp_avg_sq")
            }
        self.before, self.lowest, self.best_epoch = (
            tensors[name] for name in ("before", "lowest", "best_epoch")
        )
        self.report = FitReport(**json.loads(read_metadata(self.checkpoint)["report"]))
        self.report.history = [tuple(pair) for pair in self.report.history]
