"""How many phantoms one thread draws in a second, by size: `python -m bench.phantoms [--n 60]`.

Sizes take turns within the run, so that what else the machine does falls on all of them alike.
"""

import argparse
import platform
import time

from model.phantom import draw_phantom

_SIZES_PX = (512, 224, 128, 96)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=60, help="phantoms of each size")
    n = parser.parse_args(argv).n
    spent = dict.fromkeys(_SIZES_PX, 0.0)
    draw_phantom(76, 0, _SIZES_PX[0])
    for index in range(n):
        for size_px in _SIZES_PX:
            start = time.process_time()
            draw_phantom(77, index, size_px)
            spent[size_px] += time.process_time() - start
    print(
        f"phantoms per second of one thread's CPU time, {n} of each size, {platform.processor() or platform.machine()}"
    )
    for size_px, seconds in spent.items():
        print(f"  {size_px:4d} px  {n / seconds:6.1f}")


if __name__ == "__main__":
    main()
