"""The networks of the papers, with their parameter counts, adapting to the shape of the images."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from horovod_byz.common.registry import Registry
from horovod_byz.common.words import known
from horovod_byz.training.fit import check_logits, check_signature
from horovod_byz.training.layers import BasicBlock, BatchNorm2d, convolution, size_after, xavier

__all__ = ["MODELS", "build", "check_options", "default_options"]

Shape = tuple[int, int, int]

_WIDEST = 2**16  # units or maps of one layer; more is a slip, and exhausts the memory


def mlp(shape: Shape, classes: int, *, width: int = 128) -> nn.Sequential:
    """Two hidden layers of `width` units with ReLU: 118,282 parameters on 28x28 images and 10 classes.

    Reference: Xie, Koyejo, Gupta, "Generalized Byzantine-tolerant SGD", 2018, Table 2.
    """
    inputs = shape[0] * shape[1] * shape[2]
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(inputs, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, classes),
    )


def lenet(shape: Shape, classes: int, *, width: int = 6) -> nn.Sequential:
    """LeNet-5 with 6 and 16 maps and 120 and 84 units: 61,706 parameters on 28x28 images (padded to 32x32).

    `width` is the number of maps of the first layer; the other layers keep their proportion to it.

    Reference: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition",
        1998.
    """
    second, third, fourth = (max(1, width * size // 6) for size in (16, 120, 84))
    padding = 2 if shape[1] <= 28 else 0
    features = nn.Sequential(
        nn.Conv2d(shape[0], width, 5, padding=padding),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, second, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
    )
    return nn.Sequential(
        *features,
        nn.Linear(size_after(features, shape), third),
        nn.ReLU(),
        nn.Linear(third, fourth),
        nn.ReLU(),
        nn.Linear(fourth, classes),
    )


def lenet_20_50(shape: Shape, classes: int, *, width: int = 20) -> nn.Sequential:
    """The LeNet of the DRACO and DETOX code, 20 and 50 maps, 500 units: 431,080 parameters at 28x28."""
    second, hidden = width * 50 // 20, width * 25
    features = nn.Sequential(
        nn.Conv2d(shape[0], width, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, second, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
    )
    return nn.Sequential(
        *features, nn.Linear(size_after(features, shape), hidden), nn.ReLU(), nn.Linear(hidden, classes)
    )


def cnn_xie2018(
    shape: Shape, classes: int, *, width: int = 32, hidden: int = 512, dropout: float = 0.2
) -> nn.Sequential:
    """Four convolutions and three fully connected layers: 2,431,018 parameters on 32x32 colour images.

    The paper's table does not name the activation or the pooling; they are ReLU and max here. Nor does it
    give the first weights: Xavier's uniform distribution, as in the authors' public code of 2019. (With
    torch's defaults plain SGD stays at chance for hundreds of steps.)

    Reference: Xie, Koyejo, Gupta, "Generalized Byzantine-tolerant SGD", 2018, Table 3.
    """
    features = _four_convolutions(shape[0], width, dropout)
    model = nn.Sequential(
        *features,
        nn.Linear(size_after(features, shape), hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, classes),
    )
    return xavier(model)


def cnn_empires(
    shape: Shape, classes: int, *, width: int = 64, hidden: int = 128, dropout: float = 0.25
) -> nn.Sequential:
    """Four convolutions with batch normalisation after the ReLU: 1,310,922 parameters on 32x32 colour images.

    Weights start from Xavier's uniform distribution, biases from zero.

    Reference: Xie, Koyejo, Gupta, "Fall of Empires", 2019; layers from the authors' public code of that year.
    """
    features = _four_convolutions(shape[0], width, dropout, BatchNorm2d)
    model = nn.Sequential(
        *features,
        nn.Linear(size_after(features, shape), hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, classes),
    )
    return xavier(model)


def _four_convolutions(
    inputs: int, width: int, dropout: float, norm: Callable[[int], nn.Module] | None = None
) -> nn.Sequential:
    """Two blocks of two convolutions each, the second twice as wide; a norm, if any, after each ReLU."""
    layers: list[nn.Module] = []
    for outputs in (width, 2 * width):
        for _ in range(2):
            layers += convolution(inputs, outputs, None if norm is None else norm(outputs))
            inputs = outputs
        layers += nn.MaxPool2d(2), nn.Dropout(dropout)
    return nn.Sequential(*layers, nn.Flatten())


def resnet18(shape: Shape, classes: int, *, width: int = 64) -> nn.Sequential:
    """ResNet-18 in its CIFAR form, a 3x3 stem and widths 64 to 512: 11,173,962 parameters on colour images.

    Reference: He, Zhang, Ren, Sun, "Deep residual learning for image recognition", 2016; CIFAR form as in
        DETOX.
    """
    blocks: list[nn.Module] = []
    inputs = width
    for stage in range(4):
        for index in range(2):
            outputs = width * 2**stage
            blocks.append(BasicBlock(inputs, outputs, 2 if stage > 0 and index == 0 else 1))
            inputs = outputs
    return nn.Sequential(
        nn.Conv2d(shape[0], width, 3, 1, 1, bias=False),
        BatchNorm2d(width),
        nn.ReLU(),
        *blocks,
        # Equal to the papers' 4x4 average pool at 32x32, and defined for other sizes.
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(inputs, classes),
    )


def vgg13_bn(shape: Shape, classes: int, *, width: int = 64) -> nn.Sequential:
    """VGG13 with batch normalisation and one linear layer: 9,462,180 parameters on 32x32 images, 100 classes.

    Convolutions start from N(0, 2 / (k^2 * outputs)), the linear layer from N(0, 0.01^2).

    Reference: Simonyan, Zisserman, "Very deep convolutional networks", 2015; CIFAR form as in DETOX.
    """
    layers: list[nn.Module] = []
    inputs = shape[0]
    for multiple in (1, 2, 4, 8, 8):
        for _ in range(2):
            outputs = width * multiple
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), BatchNorm2d(outputs), nn.ReLU()]
            inputs = outputs
        layers.append(nn.MaxPool2d(2))
    features = nn.Sequential(*layers, nn.Flatten())
    model = nn.Sequential(*features, nn.Linear(size_after(features, shape), classes))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0.0, (2.0 / (9 * module.out_channels)) ** 0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.01)
            nn.init.zeros_(module.bias)
    return model


MODELS: Registry[Callable[..., nn.Module]] = Registry(
    "model",
    "horovod_byz.models",
    callable,
    "a function (shape, classes, *, options) -> torch.nn.Module",
)
"""Functions of an image's shape and the number of classes; their other parameters are options."""

for _name, _build in {
    "mlp": mlp,
    "lenet": lenet,
    "lenet-20-50": lenet_20_50,
    "cnn-xie2018": cnn_xie2018,
    "cnn-empires": cnn_empires,
    "resnet18": resnet18,
    "vgg13-bn": vgg13_bn,
}.items():
    MODELS.add(_name, _build)


def default_options(name: str) -> dict[str, Any]:
    """The options that a model takes, with their defaults; the paper's for our models.

    Raises:
        ValueError: when no model has that name, or an own one has an option without a default.
    """
    parameters = list(inspect.signature(MODELS[name]).parameters.values())[2:]
    options = {
        option.name: option.default
        for option in parameters
        if option.kind not in (option.VAR_KEYWORD, option.VAR_POSITIONAL)
    }
    bare = [option for option, default in options.items() if default is inspect.Parameter.empty]
    if bare:
        raise ValueError(f"model {name!r} has no default for {bare[0]!r}: give it one, {bare[0]}=...")
    return options


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Check that a model takes these options, and these values of them.

    Raises:
        ValueError: when it does not.
    """
    defaults = default_options(name)
    for option, value in options.items():
        known(option, defaults, f"option of model {name!r}")
        if name in MODELS.own:
            _check_size(name, option, value, defaults[option])


def _check_size(name: str, option: str, value: Any, default: int | float) -> None:
    """Checks a width or a dropout; own models judge their values themselves."""
    fraction = isinstance(default, float)
    number = isinstance(value, int | float if fraction else int) and not isinstance(value, bool)
    if not number or not (0 <= value < 1 if fraction else 1 <= value <= _WIDEST):
        wanted = "a number of at least 0 and below 1" if fraction else f"a whole number from 1 to {_WIDEST}"
        raise ValueError(f"model {name!r} got {option} = {value!r}: use {wanted}; the paper's is {default}")


def build(name: str, shape: Sequence[int], classes: int, *, seed: int = 0, **options: Any) -> nn.Module:
    """Build a model with weights that depend on `seed` only.

    Args:
        name: a name of `MODELS`, or "package.module:function".
        shape: `(channels, height, width)` of one image.
        classes: number of classes.
        seed: seed of the initial weights; the caller's random state is left as it was.
        options: changes to `default_options(name)`, such as `width`.

    Raises:
        ValueError: when the name or an option is unknown, the images are too small for the model, or an own
            model is no `torch.nn.Module`, or gives no float32 logits for such an image.
    """
    check_options(name, options)
    channels, height, width = shape
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(seed)
        if name not in MODELS.own:
            check_signature(name, MODELS[name], (channels, height, width), classes, options)
        try:
            model = MODELS[name]((channels, height, width), classes, **options)
        except RuntimeError as error:
            raise ValueError(
                f"model {name!r} does not fit images of {height}x{width} pixels ({error}): "
                "use larger images, or mlp or resnet18, which take any size"
            ) from error
        if not isinstance(model, nn.Module):
            raise ValueError(f"model {name!r} returned {type(model).__name__}: return a torch.nn.Module")
        if name not in MODELS.own:
            check_logits(name, model, (channels, height, width), classes)
    return model
