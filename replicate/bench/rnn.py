"""Speed of RNN: pooling at all landmarks in one pass beside a loop, a prediction, and a training step beside what the machine can do at most."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from replicate.bench import Measurement
from replicate.bench.machine import operations, peak, rate, synchronised
from replicate.devices import choose_device, describe_device
from replicate.methods import rnn
from replicate.methods.rnn import CONFIGS, RNN, Pooled, RNNConfig

LANDMARKS = 68
FACES = 8  # that are pooled at a time
BATCH = 16


def network(config: RNNConfig, device: torch.device) -> RNN:
    """A network with random weights, which take as long as trained ones."""
    torch.manual_seed(0)
    mean = config.size * torch.rand(LANDMARKS, 2)
    candidates = config.size * torch.rand(config.candidates, LANDMARKS, 2)
    return RNN(config, candidates, mean).to(device, memory_format=torch.channels_last)


# Shape-indexed pooling ---------------------------------------------------------------------------------------------------------------------


def pooled_at_once(maps: Tensor, shapes: list[Tensor], radius: int) -> Tensor:
    """Pool at all landmarks of all faces after each step, and send a gradient back: that of the sum, (N, C, H, W)."""
    maps = maps.detach().requires_grad_()
    pooled = Pooled(maps)
    sum(pooled.at(shape, radius).float().sum() for shape in shapes).backward()
    return maps.grad


def pooled_in_a_loop(maps: Tensor, shapes: list[Tensor], radius: int) -> Tensor:
    """The same face by face and landmark by landmark, with slices of the maps."""
    maps = maps.detach().requires_grad_()
    total = torch.zeros((), device=maps.device)
    for shape in shapes:
        for one, points in zip(maps, shape.round().long().tolist(), strict=True):
            for x, y in points:
                inside = one[:, max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1]
                total = total + functional.adaptive_max_pool2d(inside[None], 1).float().sum()
    total.backward()
    return maps.grad


def sip() -> Measurement:
    """SIP forward and backward over all steps, at the paper's sizes, on maps that are kept as the network makes them."""
    device, config = choose_device("auto"), RNNConfig()
    generator = torch.Generator().manual_seed(0)
    size, channels = config.size, rnn.DECONVOLVED
    maps = torch.rand(FACES, channels, size, size, generator=generator).bfloat16()
    maps = maps.to(device, memory_format=torch.channels_last)
    shapes = [
        (size * torch.rand(FACES, LANDMARKS, 2, generator=generator)).clamp(0, size - 1).to(device)
        for _ in range(config.steps)
    ]
    ours, loop = (
        synchronised(partial(form, maps, shapes, config.radius("deconv7")), device)
        for form in (pooled_at_once, pooled_in_a_loop)
    )
    return Measurement(
        f"max pooling around {LANDMARKS} landmarks in {config.steps} steps, forward and backward, {FACES} faces with maps of {channels} × {size} × {size}",
        value=rate(ours, FACES),
        unit="faces/s",
        peer="landmark by landmark, with slices and PyTorch's pooling",
        peer_value=rate(loop, FACES),
        device=describe_device(device),
        threads=torch.get_num_threads(),
    )


# Network ---------------------------------------------------------------------------------------------------------------------------------


def inference() -> Measurement:
    """Crops to shapes, at the `cpu` profile, beside float32 with the responses of a whole batch at once."""
    device, config = choose_device("auto"), CONFIGS["cpu"]
    made = rnn.for_inference(network(config, device))
    crops = torch.rand(BATCH, 3, config.size, config.size, device=device)
    plain = network(config, device).eval().requires_grad_(False)
    per_face = operations(partial(_predict, made, crops)) / BATCH
    value = rate(synchronised(partial(_predict, made, crops), device), BATCH)
    slow = rate(synchronised(partial(_predict_plainly, plain, crops), device), BATCH)
    return Measurement(
        f"crops to shapes, {config.backbone} at {config.size} pixels and width {config.width:g}, {config.steps} steps, batches of {BATCH}; limit: "
        f"{per_face / 1e9:.2f} GFLOP a face at the speed of the bfloat16 matrix product",
        value=value,
        unit="faces/s",
        peer="float32, responses of the whole batch",
        peer_value=slow,
        limit=peak(torch.bfloat16, device) / per_face,
        device=describe_device(device),
        threads=torch.get_num_threads(),
    )


@torch.inference_mode()
def _predict(made: RNN, crops: Tensor) -> Tensor:
    maps = made.maps(crops)
    return made.refine({name: Pooled(one) for name, one in maps.items()}, made.start(made.peaks(maps)))[-1]


@torch.inference_mode()
def _predict_plainly(made: RNN, crops: Tensor) -> Tensor:
    maps = made.features(crops)
    shape = made.start(rnn.peaks(made.responses(maps)))
    state = None
    for number, regressor in enumerate(made.regressors, start=1):
        features = made.indexed({name: Pooled(one) for name, one in maps.items()}, shape)
        state = made.lstm(features, *(state or 2 * [torch.zeros_like(features)]))
        change = regressor((features + state[0]).flatten(1)).view_as(shape)
        shape = shape + rnn.CHANGE / number * made.config.size * change
    return shape


def training() -> Measurement:
    """A step of the end-to-end training at the `cpu` profile, forward and backward, beside the plain form of the softmax loss on kept maps."""
    device, config = choose_device("auto"), replace(CONFIGS["cpu"], batch=BATCH)
    made = network(config, device)
    crops = torch.rand(BATCH, 3, config.size, config.size, device=device)
    points = config.size * torch.rand(BATCH, LANDMARKS, 2, device=device)
    per_face = (
        operations(partial(rnn.loss, made, crops, points)) * 3 / BATCH
    )  # a backward pass costs two forward ones
    ours, plain = (_step(form, made, crops, points) for form in (rnn.loss, plain_loss))
    return Measurement(
        f"a training step, {config.backbone} at {config.size} pixels and width {config.width:g}, batches of {BATCH}, without the optimiser; limit: "
        f"{per_face / 1e9:.2f} GFLOP a face at the speed of the bfloat16 matrix product",
        value=rate(synchronised(ours, device), BATCH),
        unit="faces/s",
        peer="softmax loss on maps of the whole batch",
        peer_value=rate(synchronised(plain, device), BATCH),
        limit=peak(torch.bfloat16, device) / per_face,
        device=describe_device(device),
        threads=torch.get_num_threads(),
    )


def plain_loss(made: RNN, crops: Tensor, points: Tensor) -> Tensor:
    """`rnn.loss` with the softmax loss as it is written in the paper."""
    pooled = {name: Pooled(one) for name, one in made.maps(crops).items()}
    responses = made.responses({name: one.maps for name, one in pooled.items()})
    shapes = made.refine(pooled, made.start(rnn.peaks(responses)))
    regression = rnn.regression_loss(shapes, points, made.config)
    return rnn.mapping_loss(responses, points) + made.config.weight * regression


def _step(loss: Callable[..., Tensor], made: RNN, crops: Tensor, points: Tensor) -> Callable[[], None]:
    def step() -> None:
        made.zero_grad(set_to_none=True)
        loss(made, crops, points).backward()

    return step
