"""What changes nothing but speed and memory: activation checkpointing, torch.compile, and sharded weights (FSDP).

All three work on stacks: modules that send a stream through a ModuleList of alike blocks with `run_blocks`, and say so
by an attribute `recompute`.
"""

from collections.abc import Iterator

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard


def stacks(model: nn.Module) -> Iterator[tuple[nn.Module, list[nn.Module]]]:
    """(module, its blocks) of every stack in `model`."""
    for module in model.modules():
        if hasattr(module, "recompute"):
            lists = [child for child in module.children() if isinstance(child, nn.ModuleList)]
            yield module, [block for blocks in lists for block in blocks]


def recompute_activations(model: nn.Module) -> None:
    """Activation checkpointing in every stack of `model`: much less memory in training, a third more time."""
    for module, _ in stacks(model):
        module.recompute = True  # type: ignore[assignment]


def compile_blocks(model: nn.Module) -> None:
    """torch.compile of every block, in place: names and weights stay. One block is compiled for all of its kind, which
    takes seconds where a whole model takes minutes; `dynamic`, because masks leave another number of tokens each step.
    """
    for _, blocks in stacks(model):
        for block in blocks:
            block.compile(dynamic=True)


def shard(model: nn.Module, mesh: DeviceMesh) -> None:
    """FSDP2: every process keeps a part of each weight, its gradient and its averages, and gathers a block at a time.

    The target encoder is cut like the context encoder, so that its moving average is taken part by part.
    """
    for module, blocks in stacks(model):
        for block in blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(module, mesh=mesh, reshard_after_forward=True)  # also where no backward pass would free it
