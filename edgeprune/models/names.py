"""The zoo's networks by name, for options and help, without torch: `zoo` builds them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

#: What each is, in a few words.
MODELS: Mapping[str, str] = MappingProxyType(
    {
        "lenet-300-100": "fully connected, 300 and 100 neurons",
        "mlp-32-16": "fully connected, 32 and 16 neurons",
        "mlp-1024-1024": "fully connected, twice 1024 neurons",
        "lenet5": "LeNet-5, for images of 8x8 pixels or more",
        "lenet-5-caffe": "LeNet-5 as Caffe has it, for images of 16x16 or more",
        "resnet20": "the CIFAR ResNet of 20 layers, for images of 8x8 or more",
        "resnet56": "the CIFAR ResNet of 56 layers",
        "mobilenetv2-small": "a MobileNetV2 for small images",
        "ds-cnn": "depthwise separable convolutions, for small images",
    }
)
