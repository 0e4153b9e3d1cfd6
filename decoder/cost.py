"""What every arm costs, counted by torch and not by hand: floating-point operations, parameters, seconds, memory."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from decoder.arms import Arm
from decoder.evaluate import clip_seeds, clock


def operations(call: Callable[[], object]) -> int:
    """Floating-point operations of a call, forwards and backwards: a multiplication and an addition count as two."""
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


def step_operations(loss: Callable[[], Tensor]) -> int:
    """Operations of a training step: `loss` and its gradient."""
    return operations(lambda: loss().backward())


def drawing_cost(arm: Arm, video: Tensor, task: str = "forward") -> dict[str, Any]:
    """{"operations", "seconds", "steps", "peak_bytes"} of drawing: the first two a clip, measured on a batch
    (B, C, T, H, W); the last what the batch adds to the memory in use."""
    mask = arm.task_mask(task, video)
    draw = lambda: arm.draw(video, mask, clip_seeds(0, len(video)))
    draw()  # the first call is slower than those that follow
    begun = clock(video.device)
    draw()
    seconds = clock(video.device) - begun
    return {"operations": operations(draw) / len(video), "seconds": seconds / len(video), "steps": arm.steps,
            "peak_bytes": peak_memory(draw, video.device)}  # fmt: skip


def peak_memory(call: Callable[[], object], device: torch.device) -> int | None:
    """Bytes by which a call raises the memory in use on a GPU at its peak; None elsewhere, where the peak of a process
    is that of all it has ever done."""
    if device.type != "cuda":
        return None
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    call()
    return torch.cuda.max_memory_allocated(device) - before
