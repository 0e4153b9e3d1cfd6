"""Plain products or torch's fused attention on this machine's CPU, forwards and backwards, by sequence length.

    python tests/benchmarks/bench_attention.py

`jepa.layers.attend` takes plain products up to 512 tokens on a CPU in bf16; this prints the figures behind that choice.
Each is the best of several, so that what else runs on the machine disturbs it least. Not collected by pytest.
"""

import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

LENGTHS = (16, 32, 64, 128, 256, 512, 1024, 2048)
HEADS, HEAD_DIM, TOKENS = 4, 32, 4096  # as many tokens in all at every length


def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(-1, dtype=q.dtype) @ v


Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def milliseconds(attend: Attend, length: int, dtype: torch.dtype, tries: int) -> float:
    """Best time of a step forwards and backwards."""
    shape = (max(1, TOKENS // length), HEADS, length, HEAD_DIM)
    inputs = [torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(3)]
    best = float("inf")
    for _ in range(tries):
        begun = time.perf_counter()
        attend(*inputs).sum().backward()
        best = min(best, time.perf_counter() - begun)
    return 1000 * best


def main(tries: int) -> None:
    print(f"{torch.get_num_threads()} threads, {HEADS} heads of {HEAD_DIM}, {TOKENS} tokens a step, best of {tries}")
    print(f"{'tokens':>7} {'dtype':<9} {'plain ms':>9} {'fused ms':>9} {'fused / plain':>14}")
    for dtype in (torch.float32, torch.bfloat16):
        for length in LENGTHS:
            ours = milliseconds(plain, length, dtype, tries)
            fused = milliseconds(F.scaled_dot_product_attention, length, dtype, tries)
            name = str(dtype).removeprefix("torch.")
            print(f"{length:>7} {name:<9} {ours:>9.2f} {fused:>9.2f} {fused / ours:>14.2f}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
