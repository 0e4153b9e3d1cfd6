"""What every arm costs, counted by torch and not by hand: floating-point operations, parameters, seconds, memory."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.weak import WeakIdKeyDictionary

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
    (B, C, T, H, W); the last what the batch adds to the memory in use, of tensors alone where there is no GPU."""
    mask = arm.task_mask(task, video)
    draw = lambda: arm.draw(video, mask, clip_seeds(0, len(video)))
    draw()  # the first call is slower than those that follow
    begun = clock(video.device)
    draw()
    seconds = clock(video.device) - begun
    return {"operations": operations(draw) / len(video), "seconds": seconds / len(video), "steps": arm.steps,
            "peak_bytes": peak_memory(draw, video.device)}  # fmt: skip


def peak_memory(call: Callable[[], object], device: torch.device) -> int:
    """Bytes by which the tensors of a call raise the memory in use at their peak: on a GPU by the allocator's count,
    elsewhere by what every operation returns, without what it needs inside."""
    if device.type != "cuda":
        with _Tensors() as counted:
            call()
        return counted.peak
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    call()
    return torch.cuda.max_memory_allocated(device) - before


class _Tensors(TorchDispatchMode):
    """Counts the bytes of the storages that operations make, for as long as they live."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known = WeakIdKeyDictionary()  # a set of storages that may die

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for storage in _storages((args, kwargs)):  # what was there before is not theirs
            self._known[storage] = None
        made = func(*args, **(kwargs or {}))
        for storage in _storages(made):
            if storage not in self._known:
                self._known[storage] = None
                self.now += storage.nbytes()
                weakref.finalize(storage, self._freed, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return made

    def _freed(self, size: int) -> None:
        self.now -= size


def _storages(tree: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
