"""EfficientNet-Lite2, a classifier of ImageNet's 1,000 classes, with the parameter names of the published weights.

    network = EfficientNetLite2()
    network.load_state_dict(tensors)            # every name and shape must fit
    network.eval()
    network = fuse_batch_norms(network)         # a third faster, the same logits
    network(pixels).shape                       # [N, 3, 260, 260] -> [N, 1000]

Tan and Le, 2019 (arXiv 1905.11946) describe the blocks and their scaling. The Lite variants leave out squeeze and
excitation, use ReLU6, and do not scale stem and head.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

NUM_CLASSES = 1000
PIXEL_MEAN, PIXEL_STD = 127.0, 128.0
"""Pixels are normalised as (value - mean) / std of values from 0 to 255, all channels alike."""

_STEM, _HEAD = 32, 1280
_EPSILON = 1e-3  # of batch normalisation, as in the published TensorFlow code
_STAGES = (
    # blocks, kernel, stride of the first block, expansion, channels: width 1.1 and depth 1.2 times those of B0
    (1, 3, 1, 1, 16),
    (3, 3, 2, 6, 24),
    (3, 5, 2, 6, 48),
    (4, 3, 2, 6, 88),
    (4, 5, 1, 6, 120),
    (5, 5, 2, 6, 208),
    (1, 3, 1, 6, 352),
)


class SameConv2d(nn.Conv2d):
    """A convolution without bias whose output has ceil(input / stride) pixels: TensorFlow's "same" padding.

    With a stride the padding is one pixel wider at the right and at the bottom if it cannot be even, which the
    ``padding`` of torch does not offer.
    """

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(channels_in, channels_out, kernel, stride, groups=groups, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """``[N, C, H, W]`` to ``[N, channels_out, ceil(H / stride), ceil(W / stride)]``."""
        rows, columns = (
            _padding(size, self.kernel_size[0], self.stride[0]) for size in images.shape[-2:]
        )
        if rows == columns and rows[0] == rows[1]:
            return functional.conv2d(
                images, self.weight, self.bias, self.stride, rows[0], groups=self.groups
            )
        padded = functional.pad(images, (*columns, *rows))
        return functional.conv2d(padded, self.weight, self.bias, self.stride, groups=self.groups)


def _padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Pixels before and after: 260 with kernel 3 and stride 2 gives (0, 1), and 130 pixels of output."""
    total = max(0, (-(-size // stride) - 1) * stride + kernel - size)
    return total // 2, total - total // 2


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, projection; the input is added if the shapes allow it."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        inner = channels_in * expansion
        self.expands = expansion > 1
        if self.expands:
            self._expand_conv = SameConv2d(channels_in, inner, 1)
            self._bn0: nn.Module = nn.BatchNorm2d(inner, eps=_EPSILON)
        self._depthwise_conv = SameConv2d(inner, inner, kernel, stride, groups=inner)
        self._bn1: nn.Module = nn.BatchNorm2d(inner, eps=_EPSILON)
        self._project_conv = SameConv2d(inner, channels_out, 1)
        self._bn2: nn.Module = nn.BatchNorm2d(channels_out, eps=_EPSILON)
        self.adds_input = stride == 1 and channels_in == channels_out

    def forward(self, images: Tensor) -> Tensor:
        """``[N, channels_in, H, W]`` to ``[N, channels_out, ceil(H / stride), ceil(W / stride)]``."""
        inner = images
        if self.expands:
            inner = functional.relu6(self._bn0(self._expand_conv(inner)))
        inner = functional.relu6(self._bn1(self._depthwise_conv(inner)))
        outer: Tensor = self._bn2(self._project_conv(inner))
        return outer + images if self.adds_input else outer


class EfficientNetLite2(nn.Module):
    """The classifier, as it was published."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv2d(3, _STEM, 3, stride=2)
        self._bn0: nn.Module = nn.BatchNorm2d(_STEM, eps=_EPSILON)
        blocks = []
        width = _STEM
        for count, kernel, stride, expansion, channels in _STAGES:
            for number in range(count):
                step = stride if number == 0 else 1
                blocks.append(InvertedResidual(width, channels, kernel, step, expansion))
                width = channels
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = SameConv2d(width, _HEAD, 1)
        self._bn1: nn.Module = nn.BatchNorm2d(_HEAD, eps=_EPSILON)
        self._fc = nn.Linear(_HEAD, NUM_CLASSES)

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised RGB ``[N, 3, 260, 260]`` to logits ``[N, 1000]``."""
        maps = functional.relu6(self._bn0(self._conv_stem(pixels)))  # [N, 32, 130, 130]
        for block in self._blocks:
            maps = block(maps)  # [N, 352, 9, 9] at last
        maps = functional.relu6(self._bn1(self._conv_head(maps)))  # [N, 1280, 9, 9]
        logits: Tensor = self._fc(maps.mean(dim=(-2, -1)))
        return logits


@torch.no_grad()
def fuse_batch_norms(network: EfficientNetLite2) -> EfficientNetLite2:
    """Move the batch normalisations into the convolutions before them, in place: the same logits but for rounding."""
    _fuse(network, "_conv_stem", "_bn0")
    _fuse(network, "_conv_head", "_bn1")
    for block in network._blocks:
        assert isinstance(block, InvertedResidual)
        if block.expands:
            _fuse(block, "_expand_conv", "_bn0")
        _fuse(block, "_depthwise_conv", "_bn1")
        _fuse(block, "_project_conv", "_bn2")
    return network


def _fuse(module: nn.Module, conv_name: str, norm_name: str) -> None:
    conv, norm = module.get_submodule(conv_name), module.get_submodule(norm_name)
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_var is not None
    assert norm.running_mean is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    conv.weight = nn.Parameter(conv.weight * scale[:, None, None, None])
    conv.bias = nn.Parameter(norm.bias - norm.running_mean * scale)
    setattr(module, norm_name, nn.Identity())
