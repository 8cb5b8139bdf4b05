"""The test for pictures that are no chest radiographs: fitted on one part of the data, measured on another.

    python -m bench.appearance --data ../shared/chestxray14 [--fit]

With --fit: the logistic regression of `model.radiograph.appearance`, on the radiographs of train_val_list.txt, on
phantoms, and on the families of pictures in TUNED_ON; it writes appearance.json. The threshold is where 0.3 % of those
radiographs would be warned about, by fits that have not seen them. Without it: the share warned about of the
radiographs of test_list.txt, with its interval (Wilson, 95 %), and of pictures of JUDGED_ON and photographs that
packages bring, none of which the fit has seen; turned and inverted radiographs are reported apart.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from importlib.util import find_spec
from math import sqrt
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression

from bench.pictures import JUDGED_ON, TUNED_ON, draw
from model.phantom import draw_phantom
from model.radiograph import appearance
from model.radiograph.appearance import FEATURES, features, looks_like_a_chest_radiograph

_FITTED = Path(appearance.__file__).with_suffix(".json")

_PHOTOGRAPHS = {
    "sklearn": ("datasets/images",),
    "skimage": ("data",),
    "matplotlib": ("mpl-data/sample_data", "mpl-data/images"),
}
_NO_PICTURE = {"phantom.png"}  # a head phantom's slices are drawn, and are among the tuned families in kind


def grey_of(path: Path) -> np.ndarray:
    """H×W uint8."""
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))


def photographs() -> list[tuple[str, np.ndarray]]:
    """Photographs and micrographs that installed packages ship, at least 100 px a side, none of them a chest."""
    found = []
    for package, folders in _PHOTOGRAPHS.items():
        spec = find_spec(package)
        for folder in folders if spec and spec.origin else ():
            for path in sorted((Path(spec.origin).parent / folder).glob("*")):  # type: ignore[union-attr, arg-type]
                if path.suffix in (".png", ".jpg", ".jpeg") and path.name not in _NO_PICTURE:
                    pixels = grey_of(path)
                    if min(pixels.shape) >= 100 and np.ptp(pixels):
                        found.append((f"{package}: {path.name}", pixels))
    return found


def fit(data: Path) -> None:
    real = np.array([features(pixels, 255) for pixels in _radiographs(data, "train_val_list.txt")])
    drawn = np.array([features(draw_phantom(5, i, 256).pixels, 255) for i in range(40)])
    wrong = np.array([features(draw(family, seed), 255) for family in TUNED_ON for seed in range(30)])
    write_fit(real, drawn, wrong)


def write_fit(real: np.ndarray, drawn: np.ndarray, wrong: np.ndarray) -> None:
    """N×76 features of radiographs, phantoms and pictures → appearance.json, and what it does to them."""
    named = len(FEATURES)
    mean, deviation = real[:, :named].mean(0), real[:, :named].std(0)
    everything = np.vstack([real, drawn, wrong])
    terms = np.hstack([everything, ((everything[:, :named] - mean) / deviation) ** 2])
    labels = np.array([1] * (len(real) + len(drawn)) + [0] * len(wrong))
    centre, scale = terms.mean(0), terms.std(0)
    terms = (terms - centre) / scale

    def weights(rows: np.ndarray) -> np.ndarray:
        found = LogisticRegression(C=0.1, max_iter=3000, class_weight="balanced").fit(terms[rows], labels[rows])
        return np.asarray(found.coef_[0])

    # The threshold comes from scores that the fit has not seen; those it has are a little higher.
    fold = np.arange(len(terms)) % 5
    unseen = np.concatenate([terms[fold == k][: (fold[: len(real)] == k).sum()] @ weights(fold != k) for k in range(5)])
    final = weights(np.ones(len(terms), dtype=bool))
    least = float(np.quantile(unseen, 0.003))
    scores = terms @ final
    for i, family in enumerate(TUNED_ON):
        part = np.array_split(scores[len(real) + len(drawn) :], len(TUNED_ON))[i]
        left = np.ones(len(terms), dtype=bool)
        start = len(real) + len(drawn) + i * len(part)
        left[start : start + len(part)] = False
        alone = terms @ weights(left)
        caught = (alone[~left] < np.quantile(alone[: len(real)], 0.003)).mean()
        print(f"{family:12} warned {(part < least).mean():.0%}, by a fit without this family {caught:.0%}")
    raw = final / scale
    fitted = {
        "mean": mean,
        "deviation": deviation,
        "linear": raw[:named],
        "layout": raw[named : everything.shape[1]],
        "square": raw[everything.shape[1] :],
        "least": [least + float(centre @ raw)],
    }
    rounded = {name: [round(float(v), 5) for v in numbers] for name, numbers in fitted.items()}
    _FITTED.write_text(json.dumps(rounded, indent=1) + "\n", "utf-8")


def measure(data: Path) -> None:
    began = time.perf_counter()
    tested = list(_radiographs(data, "test_list.txt"))
    read_s = time.perf_counter() - began
    began = time.perf_counter()
    _report("radiographs of test_list.txt", tested)
    test_s = time.perf_counter() - began
    print(f"{test_s / len(tested) * 1000:.1f} ms each; reading it {read_s / len(tested) * 1000:.1f} ms")
    pictures = [(family, draw(family, seed)) for family in JUDGED_ON for seed in range(10)]
    for family in JUDGED_ON:
        _report(family, [pixels for name, pixels in pictures if name == family])
    photos = photographs()
    _report("photographs", [pixels for _, pixels in photos])
    print("  not warned about:", [name for name, pixels in photos if looks_like_a_chest_radiograph(pixels, 255)])
    _report("all that are no radiographs", [pixels for _, pixels in pictures + photos])
    _report("phantoms", [draw_phantom(6, i, 256).pixels for i in range(100)])
    _report("radiographs, inverted", [255 - pixels for pixels in tested])
    _report("radiographs, upside down", [pixels[::-1, ::-1] for pixels in tested])
    _report("radiographs, turned by 90°", [np.rot90(pixels) for pixels in tested])
    _report("radiographs, mirrored", [pixels[:, ::-1] for pixels in tested])


def _radiographs(data: Path, listed: str) -> Iterable[np.ndarray]:
    for name in (data / listed).read_text().split():
        yield grey_of(data / "images" / name)


def _report(name: str, images: list[np.ndarray]) -> None:
    n, warned = len(images), sum(not looks_like_a_chest_radiograph(pixels, 255) for pixels in images)
    p, z = warned / n, 1.96
    middle, half = p + z * z / (2 * n), z * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = (max(0.0, (middle + sign * half) / (1 + z * z / n)) for sign in (-1, 1))
    print(f"{name:32} warned {warned:4} of {n:4} = {p:6.1%}  ({low:.1%} to {high:.1%})", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder in ChestX-ray14's layout")
    parser.add_argument("--fit", action="store_true")
    given = parser.parse_args()
    fit(given.data) if given.fit else measure(given.data)
