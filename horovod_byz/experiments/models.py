"""The networks of the papers, with their parameter counts, adapting to the shape of the images."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

__all__ = ["MODELS", "build", "default_options"]

Shape = tuple[int, int, int]


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
        nn.Linear(_size_after(features, shape), third),
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
        *features, nn.Linear(_size_after(features, shape), hidden), nn.ReLU(), nn.Linear(hidden, classes)
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
    features = nn.Sequential(
        *_convolution(shape[0], width),
        *_convolution(width, width),
        nn.MaxPool2d(2),
        nn.Dropout(dropout),
        *_convolution(width, 2 * width),
        *_convolution(2 * width, 2 * width),
        nn.MaxPool2d(2),
        nn.Dropout(dropout),
        nn.Flatten(),
    )
    model = nn.Sequential(
        *features,
        nn.Linear(_size_after(features, shape), hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, classes),
    )
    return _xavier(model)


def cnn_empires(
    shape: Shape, classes: int, *, width: int = 64, hidden: int = 128, dropout: float = 0.25
) -> nn.Sequential:
    """Four convolutions with batch normalisation after the ReLU: 1,310,922 parameters on 32x32 colour images.

    Weights start from Xavier's uniform distribution, biases from zero.

    Reference: Xie, Koyejo, Gupta, "Fall of Empires", 2019; layers from the authors' public code of that year.
    """
    features = nn.Sequential(
        *_convolution(shape[0], width, nn.BatchNorm2d(width)),
        *_convolution(width, width, nn.BatchNorm2d(width)),
        nn.MaxPool2d(2),
        nn.Dropout(dropout),
        *_convolution(width, 2 * width, nn.BatchNorm2d(2 * width)),
        *_convolution(2 * width, 2 * width, nn.BatchNorm2d(2 * width)),
        nn.MaxPool2d(2),
        nn.Dropout(dropout),
        nn.Flatten(),
    )
    model = nn.Sequential(
        *features,
        nn.Linear(_size_after(features, shape), hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, classes),
    )
    return _xavier(model)


class _BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, images: Tensor) -> Tensor:
        return torch.relu(self.body(images) + self.shortcut(images))


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
            blocks.append(_BasicBlock(inputs, outputs, 2 if stage > 0 and index == 0 else 1))
            inputs = outputs
    return nn.Sequential(
        nn.Conv2d(shape[0], width, 3, 1, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        *blocks,
        nn.AdaptiveAvgPool2d(
            1
        ),  # equal to the papers' 4x4 average pool at 32x32, and defined for other sizes
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
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
            inputs = outputs
        layers.append(nn.MaxPool2d(2))
    features = nn.Sequential(*layers, nn.Flatten())
    model = nn.Sequential(*features, nn.Linear(_size_after(features, shape), classes))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0.0, (2.0 / (9 * module.out_channels)) ** 0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.01)
            nn.init.zeros_(module.bias)
    return model


MODELS: dict[str, Callable[..., nn.Sequential]] = {
    "mlp": mlp,
    "lenet": lenet,
    "lenet-20-50": lenet_20_50,
    "cnn-xie2018": cnn_xie2018,
    "cnn-empires": cnn_empires,
    "resnet18": resnet18,
    "vgg13-bn": vgg13_bn,
}


def default_options(name: str) -> dict[str, int | float]:
    """The options that a model takes, with their values in the paper.

    Raises:
        ValueError: when no model has that name.
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}: use one of {', '.join(MODELS)}")
    parameters = inspect.signature(MODELS[name]).parameters.values()
    return {one.name: one.default for one in parameters if one.kind is one.KEYWORD_ONLY}


def build(name: str, shape: Sequence[int], classes: int, *, seed: int = 0, **options: float) -> nn.Sequential:
    """Build a model with weights that depend on `seed` only.

    Args:
        name: a key of `MODELS`.
        shape: `(channels, height, width)` of one image.
        classes: number of classes.
        seed: seed of the initial weights; the caller's random state is left as it was.
        options: changes to `default_options(name)`, such as `width`.

    Raises:
        ValueError: when the name or an option is unknown, or the images are too small for the model.
    """
    known = default_options(name)
    for option, value in options.items():
        if option not in known:
            raise ValueError(f"model {name!r} has no option {option!r}: it takes {', '.join(known)}")
        if value < 0 or (option != "dropout" and value < 1) or (option == "dropout" and value >= 1):
            raise ValueError(f"model {name!r} got {option} = {value}: use {known[option]} as in the paper")
    channels, height, width = shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return MODELS[name]((channels, height, width), classes, **options)
        except RuntimeError as error:
            raise ValueError(
                f"model {name!r} does not fit images of {height}x{width} pixels ({error}): "
                "use larger images, or mlp or resnet18, which take any size"
            ) from error


def _xavier(model: nn.Sequential) -> nn.Sequential:
    """Draw weights from Xavier's uniform distribution, and set biases to zero."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


def _convolution(inputs: int, outputs: int, norm: nn.Module | None = None) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
    return layers if norm is None else [*layers, norm]


def _size_after(features: nn.Sequential, shape: Shape) -> int:
    """Length of one flattened image after `features`; leaves batch normalisation's statistics alone."""
    training = features.training
    features.eval()
    with torch.no_grad():
        size = features(torch.zeros(1, *shape)).shape[1]
    features.train(training)
    if size == 0:
        raise RuntimeError("the output of a pooling layer has no pixels left")
    return int(size)
