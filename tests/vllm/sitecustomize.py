"""Declares two operators of torchvision, whose compiled half cannot load beside torch+cpu.

Its Python half registers shapes for them on import, and vLLM imports it for models that see.
"""

from torch.library import Library

OPERATORS = Library("torchvision", "DEF")
OPERATORS.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
OPERATORS.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
