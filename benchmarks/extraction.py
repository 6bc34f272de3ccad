"""Claim: extraction from JPEG files runs at >= 90 % of 1 / (1/E + 1/D), E and D being the images/s of engine and decoder alone.

All three on all cores and on the same photos, in one process, in turn, five rounds; the median of the rounds' ratios.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measured import DATA, report

from rehead.data.scan import scan
from rehead.data.sources import open_source
from rehead.exporting.prefixes import ready_prefix
from rehead.features.engines import OnnxEngine
from rehead.features.extract import extract
from rehead.features.store import Store
from rehead.features.views import PLAIN, stored_views
from rehead.parallel import batched, n_cores, ordered_map
from rehead.pixels import prepare
from rehead.progress import Silent

N_ROUNDS = 5
N_PHOTOS = 640


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        cache = Path(name)
        catalog = scan(open_source(DATA / "dogscats", cache=cache), seed=0, valid_fraction=0.2)
        prefix = ready_prefix(
            "efficientnet_lite0", weights=None, arguments={}, cut="pool", cache=cache, progress=Silent()
        )
        engine, preprocess = OnnxEngine(prefix, "cpu"), prefix.card.preprocess
        positions = list(range(0, len(catalog.photos), len(catalog.photos) // N_PHOTOS))[:N_PHOTOS]
        data = [catalog.read(catalog.photos[i]) for i in positions]
        pixels = [prepare(one, preprocess) for one in data]
        workers: dict[str, Any] = {"workers": n_cores(), "ahead": 2 * n_cores()}

        def together() -> None:
            with Store.open(cache, f"round{time.monotonic_ns()}", shape=prefix.card.shape, about={}) as store:
                extract(
                    catalog, positions, engine=engine, store=store, progress=Silent(),
                    decode=partial(stored_views, PLAIN, preprocess), max_bad=0.2,
                    stop=lambda: False, on_features=lambda *_: None,
                )  # fmt: skip
            shutil.rmtree(cache / "features")

        jobs = {
            "engine": lambda: list(
                ordered_map(lambda b: engine(np.stack(b)), batched(pixels, engine.batch), **workers)
            ),
            "decoder": lambda: list(
                ordered_map(lambda b: [prepare(d, preprocess) for d in b], batched(data, 8), **workers)
            ),
            "together": together,
        }
        rates: dict[str, list[float]] = {name: [] for name in jobs}
        for round_ in range(N_ROUNDS + 1):
            for name, job in jobs.items():
                begun = time.monotonic()
                job()
                if round_:  # the first is the warm-up
                    rates[name].append(len(positions) / (time.monotonic() - begun))
    bound = [1 / (1 / e + 1 / d) for e, d in zip(rates["engine"], rates["decoder"], strict=True)]
    shares = [t / b for t, b in zip(rates["together"], bound, strict=True)]
    facts = {f"{name}, images/s": f"{statistics.median(values):.1f}" for name, values in rates.items()}
    facts["bound, images/s"] = f"{statistics.median(bound):.1f}"
    facts["share of the bound"] = f"{statistics.median(shares):.3f} ({min(shares):.3f} to {max(shares):.3f})"
    report("extraction", facts)


if __name__ == "__main__":
    main()
