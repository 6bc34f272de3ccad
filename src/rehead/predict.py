"""A bundle on ONNX Runtime: photos -> classes and probabilities. No torch.

Each thread decodes and runs the network for its own photos, so a folder is predicted at what decoder and engine allow
together, in constant memory.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rehead.bundle import Bundle, read, sigmoid, softmax
from rehead.bundle_facts import FACTS
from rehead.data.photo_bytes import photo_in
from rehead.errors import BundleError, PhotoError
from rehead.parallel import batched, n_cores, ordered_map
from rehead.pixels import fit_array, fit_image, prepare
from rehead.prediction import Prediction, prediction_of
from rehead.runners import open_runner

BATCH = 4  # photos a call; see features/engines.py
Picture = str | os.PathLike[str] | bytes | Image.Image | NDArray[Any]


class Model:
    """A bundle, loaded. Safe to use from several threads."""

    def __init__(self, bundle: Bundle, *, variant: str | None = None, threads: int | None = None) -> None:
        self.bundle = bundle
        self.classes = bundle.classes
        self.task = bundle.task
        self.workers = threads or n_cores()
        self._runner = open_runner(bundle, variant, self.workers)
        self._widths = self._runner.widths
        _check_fit(bundle, self._runner.size, self._widths)

    def __repr__(self) -> str:
        names = ", ".join(self.classes[:5]) + ", ..." * (len(self.classes) > 5)
        return f"<rehead.Model: {self.task}{' of ' * bool(names)}{names}; {self.bundle.folder}>"

    @overload
    def predict(self, pictures: list[Picture] | tuple[Picture, ...], *, tta: bool = ...) -> list[Prediction]: ...
    @overload
    def predict(self, pictures: Picture, *, tta: bool = ...) -> Prediction: ...
    def predict(
        self, pictures: Picture | list[Picture] | tuple[Picture, ...], *, tta: bool = False
    ) -> Prediction | list[Prediction]:
        """The prediction for one picture, or a list of them for a list.

        pictures: a path, an encoded file's bytes, a Pillow image, an array (h, w), (h, w, 3) or (h, w, 4) of uint8 or
        of floats in 0..1, or a list of those. tta: see `seen_twice`; it takes twice the time.
        Raises PhotoError for one that cannot be read, which names the file.
        """
        if isinstance(pictures, (list, tuple)):
            rows = self._run(lambda pixels: self._answer(pixels, tta), pictures, 1 + max(1, len(self.classes)))
            return [prediction_of(self.bundle, row) for row in rows]
        return self.predict([pictures], tta=tta)[0]

    def predict_pixels(self, pixels: NDArray[np.uint8], *, tta: bool = False) -> list[Prediction]:
        """The predictions for prepared pixels (n, h, w, 3), n at least 1, in one run of the network. tta: see `seen_twice`."""
        return [prediction_of(self.bundle, row) for row in self._answer(pixels, tta)]

    def features(self, pictures: Picture | list[Picture] | tuple[Picture, ...]) -> NDArray[np.float32]:
        """The backbone's features, (width,) for one picture, (n, width) for a list; pictures as in `predict`."""
        if isinstance(pictures, (list, tuple)):
            return self._run(lambda pixels: self._output("features", pixels), pictures, self._widths["features"])
        return np.asarray(self.features([pictures])[0])

    def logits(self, pixels: NDArray[np.uint8], *, tta: bool = False) -> NDArray[np.float32]:
        """What the head gives for prepared pixels (n, h, w, 3): logits (n, n_classes), or the numbers themselves, (n, 1).

        tta: see `seen_twice`.
        """
        output = "value" if self.task == "regression" else "logits"
        return seen_twice(self.logits, pixels) if tta else self._output(output, pixels)

    def probabilities(self, pixels: NDArray[np.uint8], *, tta: bool = False) -> NDArray[np.float32]:
        """(n, n_classes) of prepared pixels (n, h, w, 3): rows sum to 1, or each is by itself where labels are several.

        tta: see `seen_twice`.
        """
        if not tta:
            return self._output("probabilities", pixels)
        logits = self.logits(pixels, tta=True)
        return sigmoid(logits) if self.task == "multilabel" else softmax(logits / np.float32(self.bundle.temperature))

    @property
    def has_map(self) -> bool:
        """Whether the features are the mean of a map that the bundle gives."""
        return "map" in self._widths

    def map(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """That map, (n, width, rows, columns), of prepared pixels (n, h, w, 3)."""
        return self._output("map", pixels)

    def distances(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """How unlike the photos it knows each of these is, (n,); NaN where the bundle does not say. pixels: (n, h, w, 3)."""
        if "distance" not in self._widths:
            return np.full(len(pixels), np.nan, np.float32)
        return self._output("distance", pixels)

    def predict_with_nearest(
        self, pixels: NDArray[np.uint8]
    ) -> tuple[list[Prediction], NDArray[np.int64], NDArray[np.float32]]:
        """`predict_pixels`, and for each the places in the bundle's bank of the photos learned from that it is most like,
        (n, k), the most alike first, with their cosine similarities, (n, k). k is 0 for bundles that do not say."""
        if "similarity" not in self._widths:
            none = (len(pixels), 0)
            return self.predict_pixels(pixels), np.zeros(none, np.int64), np.zeros(none, np.float32)
        name = "value" if self.task == "regression" else "probabilities"
        found, far, *near = self._runner.run([name, "distance", "nearest", "similarity"], pixels)
        rows = np.concatenate([found, far[:, None]], axis=1)
        return [prediction_of(self.bundle, row) for row in rows], near[0], near[1]

    def judged(
        self, pixels: NDArray[np.uint8], *, tta: bool = False
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """`logits` and `distances` of prepared pixels, in one run of the network."""
        name = "value" if self.task == "regression" else "logits"
        if tta or "distance" not in self._widths:
            return self.logits(pixels, tta=tta), self.distances(pixels)
        logits, far = self._runner.run([name, "distance"], pixels)
        return logits, far

    def stream(
        self, pictures: Iterable[Picture | PhotoError], *, tta: bool = False
    ) -> Iterator[Prediction | PhotoError]:
        """A prediction for each picture, in order, or the reason why there is none; memory does not grow with them.

        A PhotoError among the pictures keeps its place and comes back as it is.
        """

        def work(batch: list[Picture | PhotoError]) -> list[Prediction | PhotoError]:
            pixels = [self._readable(picture) for picture in batch]
            good = [p for p in pixels if not isinstance(p, PhotoError)]
            found = iter(self.predict_pixels(np.stack(good), tta=tta) if good else ())
            return [p if isinstance(p, PhotoError) else next(found) for p in pixels]

        for results in ordered_map(work, batched(pictures, BATCH), workers=self.workers, ahead=2 * self.workers):
            yield from results

    def _answer(self, pixels: NDArray[np.uint8], tta: bool) -> NDArray[np.float32]:
        """What is predicted of prepared pixels: probabilities, or numbers, and in a last column their distances."""
        if tta or "distance" not in self._widths:
            found = (self.logits if self.task == "regression" else self.probabilities)(pixels, tta=tta)
            far = self.distances(pixels)
        else:
            name = "value" if self.task == "regression" else "probabilities"
            found, far = self._runner.run([name, "distance"], pixels)
        return np.concatenate([found, far[:, None]], axis=1)

    def _readable(self, picture: Picture | PhotoError) -> NDArray[np.uint8] | PhotoError:
        if isinstance(picture, PhotoError):
            return picture
        try:
            return self._pixels(picture)
        except PhotoError as error:
            return error
        except OSError as error:
            return PhotoError(what=_reason(error))

    def _output(self, name: str, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.asarray(self._runner.run([name], pixels)[0])

    def _run(
        self, run: Callable[[NDArray[np.uint8]], NDArray[np.float32]], pictures: Sequence[Picture], width: int
    ) -> NDArray[np.float32]:
        """run(pixels) of all pictures, (n, width), also of none."""

        def work(batch: list[Picture]) -> NDArray[np.float32]:
            return run(np.stack([self.pixels(picture) for picture in batch]))

        if len(pictures) == 1:
            return work(list(pictures))
        rows = list(ordered_map(work, batched(pictures, BATCH), workers=self.workers, ahead=2 * self.workers))
        return np.concatenate(rows) if rows else np.empty((0, width), np.float32)

    def pixels(self, picture: Picture) -> NDArray[np.uint8]:
        """A picture as the network sees it, (h, w, 3). Raises PhotoError, which names the file."""
        try:
            return self._pixels(picture)
        except (PhotoError, OSError) as error:
            if not isinstance(picture, (str, os.PathLike)):
                raise
            reason = error.what if isinstance(error, PhotoError) else _reason(error)
            raise PhotoError(what=f"{os.fspath(picture)} {reason}") from error

    def _pixels(self, picture: Picture) -> NDArray[np.uint8]:
        if isinstance(picture, (str, os.PathLike)):
            picture = _bytes_of(picture)
        if isinstance(picture, bytes):
            return prepare(picture, self.bundle.preprocess)
        if isinstance(picture, Image.Image):
            return fit_image(picture, self.bundle.preprocess)
        if isinstance(picture, np.ndarray):
            return fit_array(picture, self.bundle.preprocess)
        raise PhotoError(
            what=f"{type(picture).__name__} is no kind of picture: pass a path, bytes, a Pillow image or an array"
        )


def load(folder: str | os.PathLike[str], *, variant: str | None = None, threads: int | None = None) -> Model:
    """The model in a bundle's folder, or a variant of it, such as "int8". threads: photos under way at once, by default one a
    core. Raises BundleError; MissingExtra where a variant's library is not installed."""
    return Model(read(Path(folder)), variant=variant, threads=threads)


def _check_fit(bundle: Bundle, size: Sequence[Any], widths: Mapping[str, Any]) -> None:
    """Raises BundleError where the graph and `rehead.json` speak of different models. size, widths: as in `Runner`."""
    preprocess, answer = bundle.preprocess, "value" if bundle.task == "regression" else "probabilities"
    n, wanted = widths.get(answer), [preprocess.height, preprocess.width]
    wrong = ""
    if n is None or "features" not in widths:
        wrong = f"it gives {', '.join(widths)}, not features and {answer}"
    elif n != max(1, len(bundle.classes)):
        wrong = f"it gives {n} {answer}, and there are {len(bundle.classes)} classes"
    elif list(size) != wanted:
        wrong = "it takes photos of {} x {} pixels, not {} x {}".format(*size, *wanted)
    if wrong:
        raise BundleError(
            what=f"{bundle.model} does not fit {FACTS}: {wrong}.",
            why="One of them was changed or exchanged after the bundle was written.",
            fix="Copy the whole bundle again, or export the run again with rehead tune.",
        )


def _bytes_of(path: str | os.PathLike[str]) -> bytes:
    """What `photo_in` gives. Raises PhotoError also for a pipe or a device, which could be waited for without end, OSError."""
    kind = os.stat(path).st_mode
    if not stat.S_ISREG(kind):
        raise PhotoError(what="is a folder" if stat.S_ISDIR(kind) else "is not a regular file")
    return photo_in(path)


def _reason(error: OSError) -> str:
    """Why a file could not be read; it continues the path."""
    return "is not there" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror or error}"


def seen_twice(
    run: Callable[[NDArray[np.uint8]], NDArray[np.float32]], pixels: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """The mean of run(pixels) and of the same for the mirror images: test-time augmentation. pixels: (n, h, w, 3)."""
    mirrored = np.ascontiguousarray(pixels[:, :, ::-1])
    return np.asarray((run(pixels) + run(mirrored)) / 2, np.float32)
