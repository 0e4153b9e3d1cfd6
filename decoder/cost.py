"""What every arm costs, counted by torch and not by hand: floating-point operations, parameters, seconds, memory."""

import resource
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from decoder.arms import Arm
from decoder.evaluate import clip_seeds


def operations(call: Callable[[], object]) -> int:
    """Floating-point operations of a call, forwards and backwards: a multiplication and an addition count as two."""
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


def step_operations(loss: Callable[[], Tensor]) -> int:
    """Operations of a training step: `loss` and its gradient."""
    return operations(lambda: loss().backward())


def drawing_cost(arm: Arm, video: Tensor, task: str = "forward") -> dict[str, Any]:
    """{"operations", "seconds", "steps"} of drawing one clip, measured on a batch (B, C, T, H, W)."""
    mask = arm.task_mask(task, video)
    draw = lambda: arm.draw(video, mask, clip_seeds(0, len(video)))
    draw()  # the first call is slower than those that follow
    begun = time.perf_counter()
    draw()
    if video.is_cuda:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - begun
    return {"operations": operations(draw) / len(video), "seconds": seconds / len(video), "steps": arm.steps}


def peak_memory() -> int:
    """Bytes: the most this process has held so far, on the GPU where there is one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
