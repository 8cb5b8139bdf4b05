"""What each explanation costs, in bare forward passes, in one run: `python -m bench.explain`.

All calls take turns, so that a busy moment hits all alike; the bare pass is the network under `inference_mode`.
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial

import torch

from bench.saliency import BARE, Calls, interleaved, machine
from model.checkpoint import BUNDLED, load_checkpoint
from model.explanation import Method, Occlusion, ScoreCam, explain, forward_passes
from model.findings import FINDINGS
from model.network import LAST_LAYER, MIDDLE_LAYER

SLOW = {Method.SCORE_CAM, Method.OCCLUSION}


def main(argv: list[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.explain", description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9, help="interleaved repeats of the quick methods (default 9)")
    parser.add_argument("--size", type=int, default=224, help="input side in pixels (default 224)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    options = parser.parse_args(argv)
    if options.repeats < 1 or options.size < 64 or options.threads < 1:
        parser.error("--repeats and --threads must be at least 1, --size at least 64")
    torch.set_num_threads(options.threads)
    network = load_checkpoint(BUNDLED / "clean").network
    inputs = torch.randn(1, 3, options.size, options.size, generator=torch.Generator().manual_seed(0))
    inputs = inputs.contiguous(memory_format=torch.channels_last)

    def bare() -> None:
        with torch.inference_mode():
            network(inputs)

    calls: Calls = {BARE: (bare, options.repeats)}
    occlusion, scorecam = Occlusion(), ScoreCam()
    for method in Method:
        for findings in (1, len(FINDINGS)):
            call = partial(
                explain,
                network,
                inputs,
                method,
                (MIDDLE_LAYER, LAST_LAYER),
                range(findings),
                occlusion=occlusion,
                scorecam=scorecam,
            )
            calls[f"{method}, {findings}"] = (call, 1 if method in SLOW else options.repeats)
    taken = interleaved(calls)
    base = statistics.median(taken[BARE])
    print(f"Explanations at the middle and the last layer, {options.size} px, batch 1, float32, channels last")
    print(f"{machine()}\n{options.repeats} interleaved repeats, of the slow two 1: medians in bare passes")
    print(f"({base * 1e3:.0f} ms). “Passes” are the forward passes beyond the first that the method asks for.\n")
    print(f"{'':14}{'1 finding':>12}{'14 findings':>14}{'passes':>10}")
    for method in Method:
        ratios = [statistics.median(taken[f"{method}, {n}"]) / base for n in (1, len(FINDINGS))]
        passes = forward_passes(method, options.size, occlusion=occlusion, scorecam=scorecam)
        passes *= 2 if method is Method.SCORE_CAM else 1
        print(f"{method:14}{ratios[0]:12.1f}{ratios[1]:14.1f}{passes:10}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
