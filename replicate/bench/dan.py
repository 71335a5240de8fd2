"""Speed of DAN at the paper's width, beside the same network written plainly: float32, layer after layer."""

from collections.abc import Callable

import torch
from torch import Tensor

from replicate.bench import Measurement
from replicate.bench.machine import operations, peak, rate
from replicate.devices import describe_device
from replicate.faces import synthetic
from replicate.faces.augment import Samples
from replicate.faces.faceset import FaceSet
from replicate.geometry import apply_transform, fit_similarity, invert, tight_box
from replicate.methods import dan
from replicate.shapes import mean_shape

FACES = 32
CPU = torch.device("cpu")


def faces() -> FaceSet:
    """A batch of generated training faces."""
    made = synthetic.generate_many(2, range(FACES))
    names = tuple(f"bench_{i}" for i in range(FACES))
    boxes = tight_box(torch.as_tensor(made.points)).numpy()
    return FaceSet(
        made.images, made.points, made.visible, boxes, names, "ibug68", "300w", "train", "synthetic", "tight"
    )


def _network(stages: int) -> tuple[dan.DAN, Samples]:
    """A network at the paper's width with random weights, and samples for it."""
    torch.manual_seed(0)
    config = dan.DANConfig(batch=32)  # the paper's network, the cpu profile's batches
    training = faces()
    mean = mean_shape(torch.as_tensor(training.points))
    samples = Samples(training, mean, config.frame, config.perturbation, config.batch, seed=0)
    size = config.input_size
    network = dan.DAN(
        config,
        stages,
        config.frame.canonical(mean),
        torch.full((size, size), 0.5),
        torch.full((size, size), 0.25),
    )
    return network.to(memory_format=torch.channels_last), samples


def plain_forward(network: dan.DAN, crops: Tensor) -> list[Tensor]:
    """`DAN.forward` in float32 and PyTorch's default memory format: the peer, and a check of the fast form."""
    image = (crops - network.pixel_mean) / network.pixel_std
    joined, shapes, hidden = image, [], None
    for t, stage in enumerate(network.stages):
        before = network.canonical.expand(len(crops), -1, -1) if t == 0 else shapes[-1]
        transform = None
        if t > 0:
            transform = fit_similarity(before, network.canonical.expand_as(before))
            parts = network.connections[t - 1].parts(image, before, hidden, network.canonical)
            joined = network.connections[t - 1].norm(torch.cat(parts[:3], 1))
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
    return copy.to(memory_format=torch.contiguous_format)


def inference() -> Measurement:
    """Two stages at the paper's width."""
    network, samples = _network(stages=2)
    plain = _plain_copy(network).eval()
    network = dan.for_inference(network)
    crops = samples.canvases.crops(torch.arange(FACES))
    with torch.inference_mode():
        fast = torch.cat([network(part)[-1] for part in crops.split(8)])
        slow = plain_forward(plain, crops)[-1]
        ours = rate(lambda: [network(part) for part in crops.split(8)], FACES)
        naive = rate(lambda: [plain_forward(plain, part) for part in crops.split(8)], FACES)
        per_face = operations(lambda: plain_forward(plain, crops[:8])) / 8
    deviation = (fast - slow).norm(dim=-1).mean().item()
    return Measurement(
        measures=f"two stages, width {network.config.width}, 112 x 112 pixels, batches of 8, bfloat16, channels-last, batch normalisation folded; points move "
        f"by {deviation:.3f} pixels on average; limit: {per_face / 1e9:.2f} GFLOP a face at the speed of the bfloat16 matrix product",
        value=ours,
        unit="faces/s",
        peer="the same network in eager float32",
        peer_value=naive,
        limit=peak(torch.bfloat16, CPU) / per_face,
        device=describe_device(CPU),
        threads=torch.get_num_threads(),
    )


def training() -> Measurement:
    """Training steps of the first stage at the paper's width, drawing the samples included."""
    network, samples = _network(stages=1)
    plain = _plain_copy(network)
    batch = samples.batch
    ours = rate(step(network, network, samples), batch, 6.0)
    naive = rate(step(plain, lambda crops: plain_forward(plain, crops), samples), batch, 6.0)
    drawn = rate(lambda: samples(0), batch, 1.0)
    per_sample = operations(step(plain, lambda crops: plain_forward(plain, crops), samples)) / batch
    return Measurement(
        measures=f"first stage, width {network.config.width}, batches of {batch}, Adam; drawing the samples takes {ours / drawn:.1%} of the "
        f"time; limit: {per_sample / 1e9:.2f} GFLOP a sample at the speed of the bfloat16 matrix product",
        value=ours,
        unit="samples/s",
        peer="the same network in eager float32",
        peer_value=naive,
        limit=peak(torch.bfloat16, CPU) / per_sample,
        device=describe_device(CPU),
        threads=torch.get_num_threads(),
    )


def step(network: dan.DAN, forward: Callable[[Tensor], list[Tensor]], samples: Samples) -> Callable[[], None]:
    """One training step of a network, by `forward`, on the same batch each time."""
    optimiser = torch.optim.Adam(network.parameters(), network.config.step_size)
    network.train()

    def step() -> None:
        crops, true = samples(0)
        optimiser.zero_grad(set_to_none=True)
        dan.normalised_distance(forward(crops)[-1], true, samples.markup).mean().backward()
        optimiser.step()

    return step
