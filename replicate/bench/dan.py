"""Speed of DAN at the paper's width, beside the same network written plainly: float32, layer after layer."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from replicate.bench import Measurement
from replicate.bench.machine import operations, peak, rate, synchronised
from replicate.devices import choose_device, describe_device
from replicate.evidence import claims
from replicate.faces import synthetic
from replicate.faces.augment import Samples
from replicate.faces.faceset import FaceSet
from replicate.geometry import apply_transform, fit_similarity, invert, tight_box
from replicate.methods import dan
from replicate.shapes import mean_shape

FACES, BATCH = 32, 8  # faces measured, and how many of them enter a network at a time
Forward = Callable[[Tensor], list[Tensor]]


def faces(count: int | None = None) -> FaceSet:
    """Generated training faces, a batch unless told otherwise."""
    count = FACES if count is None else count
    made = synthetic.generate_many(2, range(count))
    names = tuple(f"bench_{i}" for i in range(count))
    boxes = tight_box(torch.as_tensor(made.points)).numpy()
    return FaceSet(
        made.images, made.points, made.visible, boxes, names, "ibug68", "300w", "train", "synthetic", "tight"
    )


def _network(stages: int) -> tuple[dan.DAN, Samples]:
    """A network at the paper's width with random weights, and samples for it, on the device that `auto` means."""
    torch.manual_seed(0)
    device = choose_device("auto")
    config = dan.DANConfig(batch=32)  # the paper's network, the cpu profile's batches
    training = faces()
    mean = mean_shape(torch.as_tensor(training.points))
    samples = Samples(training, mean, config.frame, config.perturbation, config.batch, 0, device)
    size = config.input_size
    network = dan.DAN(
        config,
        stages,
        config.frame.canonical(mean),
        torch.full((size, size), 0.5),
        torch.full((size, size), 0.25),
    )
    return network.to(device, memory_format=torch.channels_last), samples


def plain_forward(network: dan.DAN, crops: Tensor) -> list[Tensor]:
    """`DAN.forward` in float32 and PyTorch's default memory format: the peer, and a check of the fast form."""
    image = (crops - network.pixel_mean) / network.pixel_std
    joined, shapes, hidden = image, [], None
    for t, stage in enumerate(network.stages):
        before = network.canonical.expand(len(crops), -1, -1) if t == 0 else shapes[-1]
        transform = None
        if t > 0:
            transform = fit_similarity(before, network.canonical.expand_as(before))
            images, _ = network.connections[t - 1].parts(image, before, hidden, network.canonical)
            joined = network.connections[t - 1].norm(torch.cat(list(images.values()), 1))
        hidden = stage.fc1(stage.dropout(stage.convolutions(joined).flatten(1)))
        delta = stage.fc2(hidden).unflatten(1, (-1, 2))
        if transform is None:
            shapes.append(before + delta)
        else:
            shapes.append(apply_transform(invert(transform), apply_transform(transform, before) + delta))
    return shapes


def _plain_copy(network: dan.DAN) -> dan.DAN:
    config, mean, std = network.config, network.pixel_mean, network.pixel_std
    copy = dan.DAN(config, len(network.stages), network.canonical, mean, std)
    copy.load_state_dict(network.state_dict())
    return copy.to(network.canonical.device, memory_format=torch.contiguous_format)


def _two_stages(dtype: torch.dtype = torch.bfloat16) -> tuple[dan.DAN, dan.DAN, Tensor]:
    """A network written plainly, the same folded for inference with its matrices in `dtype`, and crops of the bench's faces."""
    network, samples = _network(stages=2)
    folded = dan.for_inference(network).to(dtype) if dtype == torch.float32 else dan.for_inference(network)
    crops = samples.canvases.crops(torch.arange(FACES, device=samples.points.device))
    return _plain_copy(network).eval(), folded, crops


def inference() -> Measurement:
    """Two stages at the paper's width, as they predict."""
    plain, fast, crops = _two_stages()
    return _beside_plain(plain, fast, fast, crops, torch.bfloat16)


def inference32() -> Measurement:
    """The same in float32."""
    plain, folded, crops = _two_stages(torch.float32)
    return _beside_plain(plain, folded, partial(plain_forward, folded), crops, torch.float32)


@torch.inference_mode()
def _beside_plain(
    plain: dan.DAN, fast: dan.DAN, forward: Forward, crops: Tensor, dtype: torch.dtype
) -> Measurement:
    name = str(dtype).removeprefix("torch.")
    deviation = (forward(crops)[-1] - plain_forward(plain, crops)[-1]).norm(dim=-1).mean().item()
    per_face = _operations(plain, crops)
    return _measurement(
        f"two stages, width {fast.config.width}, 112 x 112 pixels, batches of {BATCH}, {name}, channels-last, batch normalisation folded; points move "
        f"by {deviation:.3f} pixels on average; limit: {per_face / 1e9:.2f} GFLOP a face at the speed of the {name} matrix product",
        crops.device,
        value=_rate(forward, crops),
        peer="the same network in eager float32",
        peer_value=_rate(partial(plain_forward, plain), crops),
        limit=peak(dtype, crops.device) / per_face,
    )


@torch.inference_mode()
def sequential() -> Measurement:
    """Faces one by one beside batches, without cutting the crops: DAN-S7."""
    plain, fast, crops = _two_stages()
    paper = claims.get("DAN-C18").quantity()
    return _measurement(
        f"two stages, width {fast.config.width}, bfloat16, faces one by one beside batches of {BATCH}; the paper's ratio is "
        f"{paper.paper_right / paper.paper_left:.2f}, on a GPU",
        crops.device,
        value=_rate(fast, crops, 1),
        peer=f"batches of {BATCH}",
        peer_value=_rate(fast, crops),
        limit=peak(torch.bfloat16, crops.device) / _operations(plain, crops),
    )


@torch.inference_mode()
def connection() -> Measurement:
    """The connection layers as a share of a forward pass."""
    _, fast, crops = _two_stages()
    layers, image = fast.connections[0], (crops - fast.pixel_mean) / fast.pixel_std
    with torch.autocast(crops.device.type, torch.bfloat16):  # as in `DAN.forward`
        delta, hidden = fast.stages[0](image)
        batches = list(
            zip(image.split(BATCH), (fast.canonical + delta).split(BATCH), hidden.split(BATCH), strict=True)
        )
        ours = rate(
            synchronised(lambda: [layers(*batch, fast.canonical) for batch in batches], crops.device), FACES
        )
    whole = _rate(fast, crops)
    return _measurement(
        f"transform, warp, heatmap and feature image between two stages, width {fast.config.width}, batches of {BATCH}: {whole / ours:.1%} of a forward "
        "pass; the aim is less than 15 %",
        crops.device,
        value=ours,
        peer="the forward pass that holds them",
        peer_value=whole,
    )


def _rate(forward: Forward, crops: Tensor, batch: int = BATCH) -> float:
    """Faces per second in batches."""
    work = synchronised(lambda: [forward(part) for part in crops.split(batch)], crops.device)
    return rate(work, len(crops))


def _operations(plain: dan.DAN, crops: Tensor) -> float:
    """Floating-point operations per face."""
    return operations(lambda: plain_forward(plain, crops)) / len(crops)


def _measurement(
    measures: str, device: torch.device, *, unit: str = "faces/s", **found: object
) -> Measurement:
    return Measurement(
        measures, unit=unit, device=describe_device(device), threads=torch.get_num_threads(), **found
    )


def training() -> Measurement:
    """Training steps of the first stage at the paper's width, drawing the samples included."""
    network, samples = _network(stages=1)
    plain, device = _plain_copy(network), samples.points.device
    batch = samples.batch
    slow_step = step(plain, partial(plain_forward, plain), samples)
    ours = rate(synchronised(step(network, network, samples), device), batch, 6.0)
    naive = rate(synchronised(slow_step, device), batch, 6.0)
    drawn = rate(synchronised(lambda: samples(0), device), batch, 1.0)
    per_sample = operations(slow_step) / batch
    return _measurement(
        f"first stage, width {network.config.width}, batches of {batch}, Adam; drawing the samples takes {ours / drawn:.1%} of the "
        f"time; limit: {per_sample / 1e9:.2f} GFLOP a sample at the speed of the bfloat16 matrix product",
        device,
        value=ours,
        unit="samples/s",
        peer="the same network in eager float32",
        peer_value=naive,
        limit=peak(torch.bfloat16, device) / per_sample,
    )


def step(network: dan.DAN, forward: Forward, samples: Samples) -> Callable[[], None]:
    """One training step of a network, by `forward`, on the same batch each time."""
    optimiser = torch.optim.Adam(network.parameters(), network.config.step_size)
    network.train()

    def step() -> None:
        crops, true = samples(0)
        optimiser.zero_grad(set_to_none=True)
        dan.normalised_distance(forward(crops)[-1], true, samples.markup).mean().backward()
        optimiser.step()

    return step
