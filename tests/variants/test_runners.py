"""The laws of `Runner`, for every entry of the dict; and that a .pt2 runs nothing that stands in it."""

from __future__ import annotations

import io
import pickle
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from small_models import SIZE, pixels_of, small_bundle, write_photos

from rehead import bundle as bundles
from rehead.errors import BundleError
from rehead.exported_programs import checked_program, open_program
from rehead.runners import RUNNERS, OnnxRunner, Runner
from rehead.variants.forms import Make
from rehead.variants.int8 import correct_similarity, to_int8
from rehead.variants.ir import to_openvino
from rehead.variants.pt2 import to_torch

OUTPUTS = {"features": 24, "logits": 2, "probabilities": 2, "map": 24, "distance": None, "nearest": 3, "similarity": 3}
GOLDEN = Path(__file__).parents[1] / "golden"
MAKERS: dict[str, tuple[str, Make]] = {
    "int8": (".onnx", to_int8),
    "openvino": (".xml", to_openvino),
    "torch": (".pt2", to_torch),
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("runners") / "photos", 12)


@pytest.fixture(scope="module")
def files(photos: Path) -> dict[str, Path]:
    """The file of each form, and of the original."""
    bundle = bundles.read(small_bundle(photos.parent / "bundle", photos))
    found = {"original": bundle.model}
    for name, (_, make) in MAKERS.items():
        folder = photos.parent / name
        folder.mkdir()
        found[name] = make(bundle, folder, lambda: pixels_of(photos)).files[0]
    return found


@pytest.fixture(params=["original", *MAKERS])
def runner(request: pytest.FixtureRequest, files: dict[str, Path]) -> Runner:
    path = files[request.param]
    return RUNNERS[path.suffix](path, 2)


def test_every_kind_of_file_is_held_to_the_laws() -> None:
    assert {suffix for suffix, _ in MAKERS.values()} == set(RUNNERS)


def test_it_says_what_it_takes_and_gives(runner: Runner, photos: Path) -> None:
    assert list(runner.size) == [SIZE, SIZE]
    assert set(runner.widths) == set(OUTPUTS)
    pixels = pixels_of(photos)[:3]
    for name, width in OUTPUTS.items():
        found = runner.run([name], pixels)[0]
        assert found.dtype == (np.int64 if name == "nearest" else np.float32), name
        assert len(found) == 3
        if width is not None:
            assert found.shape[1] == width
    assert runner.widths["features"] == 24
    assert runner.widths["probabilities"] == 2


def test_a_photo_does_not_depend_on_those_beside_it(runner: Runner, photos: Path) -> None:
    pixels = pixels_of(photos)
    together = runner.run(["logits", "distance"], pixels)
    for n in (1, 2, 7):
        alone = runner.run(["logits", "distance"], pixels[:n])
        for one, other in zip(alone, together, strict=True):
            np.testing.assert_allclose(one, other[:n], atol=1e-4)


def test_any_number_of_threads_may_call_and_what_was_returned_stays(runner: Runner, photos: Path) -> None:
    pixels = pixels_of(photos)
    wanted = [runner.run(["features"], pixels[i : i + 1])[0].copy() for i in range(len(pixels))]
    with ThreadPoolExecutor(8, thread_name_prefix="rehead") as pool:
        for _ in range(3):
            found = list(pool.map(lambda i: runner.run(["features"], pixels[i : i + 1])[0], range(len(pixels))))
            np.testing.assert_allclose(np.concatenate(found), np.concatenate(wanted), atol=1e-4)


def test_outputs_come_in_the_order_that_was_asked_for(runner: Runner, photos: Path) -> None:
    pixels = pixels_of(photos)[:2]
    far, p = runner.run(["distance", "probabilities"], pixels)
    assert (far.shape, p.shape) == ((2,), (2, 2))
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)


def test_forms_give_what_the_original_gives(files: dict[str, Path], photos: Path) -> None:
    pixels = pixels_of(photos)
    wanted = OnnxRunner(files["original"], 1).run(list(OUTPUTS), pixels)
    for name in ("openvino", "torch"):
        found = RUNNERS[files[name].suffix](files[name], 2).run(list(OUTPUTS), pixels)
        for output, one, other in zip(OUTPUTS, found, wanted, strict=True):
            if output != "nearest":  # of photos that are equally near either may come first
                np.testing.assert_allclose(one, other, atol=1e-4, err_msg=f"{name} {output}")


def test_distance_is_one_less_the_similarity_to_the_last_of_the_nearest(runner: Runner, photos: Path) -> None:
    far, similarity = runner.run(["distance", "similarity"], pixels_of(photos))
    np.testing.assert_allclose(far, 1 - similarity[:, -1], atol=1e-6)


def test_similarity_is_given_back_by_a_factor(files: dict[str, Path], photos: Path, tmp_path: Path) -> None:
    before, after = (
        OnnxRunner(path, 1).run(["distance", "similarity"], pixels_of(photos))
        for path in (files["original"], corrected(files["original"], tmp_path))
    )
    np.testing.assert_allclose(1 - after[0], (1 - before[0]) / 0.8, atol=1e-5)
    np.testing.assert_allclose(after[1], before[1] / 0.8, atol=1e-5)
    np.testing.assert_allclose(after[0], 1 - after[1][:, -1], atol=1e-6)


@pytest.mark.parametrize("name", ["bundle-3", "bundle-4"])
def test_it_is_given_back_to_graphs_of_older_formats_that_give_the_distance_alone(name: str, tmp_path: Path) -> None:
    original = GOLDEN / name / "model.onnx"
    runners = [OnnxRunner(path, 1) for path in (original, corrected(original, tmp_path))]
    pixels = np.random.default_rng(0).integers(0, 256, (2, *runners[0].size, 3), np.uint8)
    before, after = (runner.run(["distance"], pixels)[0] for runner in runners)
    np.testing.assert_allclose(1 - after, (1 - before) / 0.8, atol=1e-5)


def test_the_choice_of_the_nearest_is_known_by_what_it_makes(files: dict[str, Path]) -> None:
    graph = onnx.load(str(files["original"])).graph
    choice = next(node for node in graph.node if node.op_type == "TopK")
    choice.input[1] = "k of another program"
    correct_similarity(graph, 0.8)
    assert choice.input[0] == "bank.corrected"
    choice.output[0] = "else"
    with pytest.raises(BundleError, match="cannot be put into 8 bits"):
        correct_similarity(graph, 0.8)


def test_a_graph_that_openvino_does_not_read_is_told_as_the_bundles(tmp_path: Path) -> None:
    bundle = shutil.copytree(GOLDEN / "bundle-4", tmp_path / "bundle")
    graph = onnx.load(str(bundle / "model.onnx"))
    graph.graph.node[0].op_type = "NoSuchThing"
    onnx.save(graph, str(bundle / "model.onnx"))
    with pytest.raises(BundleError, match="OpenVINO cannot take this network") as caught:
        to_openvino(replace(bundles.read(GOLDEN / "bundle-4"), folder=bundle), tmp_path, lambda: np.empty(0, np.uint8))
    assert "--to torch" in caught.value.fix


def corrected(model: Path, folder: Path) -> Path:
    """The graph as if 0.8 of the similarity were kept."""
    graph = onnx.load(str(model))
    correct_similarity(graph.graph, 0.8)
    onnx.checker.check_model(graph)
    onnx.save(graph, str(folder / "corrected.onnx"))
    return folder / "corrected.onnx"


def test_a_program_tells_nothing_of_the_machine_it_was_made_on(files: dict[str, Path]) -> None:
    with zipfile.ZipFile(files["torch"]) as archive:
        said = b"".join(archive.read(name) for name in archive.namelist())
    assert b"onnx_in_torch" not in said
    assert str(Path.cwd()).encode() not in said


class Touch:
    """A pickle that makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def changed(path: Path, out: Path, member: str, change: Callable[[bytes], bytes]) -> Path:
    """A copy of a program in which one member is another."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            target.writestr(name, change(data) if name.endswith(member) else data)
    return out


def text(old: str, new: str) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        assert old.encode() in data
        return data.replace(old.encode(), new.encode())

    return change


def pickled(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("member", "change", "why"),
    [
        ("model.json", text('"torch.ops.aten.relu.default"', '"torch.hub.load"'), "it calls 'torch.hub.load'"),
        ("model.json", text('"torch.ops.aten.relu.default"', '"torch.ops.aten.from_file.default"'), "it calls"),
        ("model.json", text('"torch.ops.aten.relu.default"', '"torch.ops.aten.relu_.default"'), "it calls"),
        ("model.json", text('"torch.ops.aten.relu.default"', '"_operator.methodcaller"'), "it calls"),
        ("model.json", text("Symbol('s", "__import__('os').system('s"), "it computes"),
        ("model.json", text('"torch.ops.aten.relu.default"', '["torch.hub.load"]'), "its target is no text"),
        (
            "model.json",
            text('"expr_str": "', '"expr_str": {"a": "__import__(0)"}, "was": "'),
            "its expr_str is no text",
        ),
        ("model.json", text('"guards_code": []', '"guards_code": ["print(1)"]'), "code to check its inputs"),
        ("model_weights_config.json", text('"use_pickle": false', '"use_pickle": true'), "its weights are pickled"),
        ("model.json", lambda data: data[: len(data) // 2], "JSONDecodeError"),
        ("sample_inputs/model.pt", lambda data: pickle.dumps({}), "its example holds"),
        ("model_constants_config.json", lambda data: b"[]", "TypeError"),
    ],
)
def test_a_program_that_would_run_something_is_not_opened(
    files: dict[str, Path], tmp_path: Path, member: str, change: Callable[[bytes], bytes], why: str
) -> None:
    with pytest.raises(BundleError, match="is not opened") as caught:
        open_program(changed(files["torch"], tmp_path / "changed.pt2", member, change))
    assert why in str(caught.value)


@pytest.mark.slow
def test_a_pickle_in_a_program_is_not_run_and_would_be_by_pytorch(files: dict[str, Path], tmp_path: Path) -> None:
    made = tmp_path / "made"
    path = changed(
        files["torch"], tmp_path / "t.pt2", "sample_inputs/model.pt", lambda _: pickled(((Touch(made),), {}))
    )
    with pytest.raises(BundleError, match="more than tensors"):
        open_program(path)
    assert not made.exists()
    subprocess.run(
        [sys.executable, "-c", f"import torch; torch.export.load({str(path)!r})"], check=True, capture_output=True
    )
    assert made.exists()


def two_in_one(first: bytes, second: bytes) -> bytes:
    """A file that is one zip for who counts from its beginning, as PyTorch does, another for who counts from its end."""
    ends = [archive.rindex(b"PK\x05\x06") for archive in (first, second)]
    (size, at), (own_size, own_at) = (
        struct.unpack_from("<II", a, e + 12) for a, e in zip((first, second), ends, strict=True)
    )
    assert size == own_size
    place, directory = own_at, bytearray(second)
    for _ in range(struct.unpack_from("<H", second, ends[1] + 10)[0]):
        offset = struct.unpack_from("<I", directory, place + 42)[0]
        struct.pack_into("<I", directory, place + 42, offset + at - own_at)
        place += 46 + sum(struct.unpack_from("<HHH", directory, place + 28))
    return first[: ends[0]] + bytes(directory[: ends[1]]) + first[ends[0] :]


def test_of_a_file_that_is_two_the_one_that_was_looked_at_is_opened(files: dict[str, Path], tmp_path: Path) -> None:
    made, large = tmp_path / "made", bytes(files["torch"].stat().st_size)  # so that its offsets are the larger ones
    bad = changed(files["torch"], tmp_path / "bad", "sample_inputs/model.pt", lambda _: pickled((Touch(made), large)))
    good = changed(files["torch"], tmp_path / "good", "sample_inputs/model.pt", lambda data: data)
    path = tmp_path / "both.pt2"
    path.write_bytes(two_in_one(bad.read_bytes(), good.read_bytes()))
    assert torch._C.PyTorchFileReader(str(path)).get_record("data/sample_inputs/model.pt").count(b"touch")
    assert list(open_program(path)[1]) == [SIZE, SIZE]
    assert not made.exists()


def test_a_program_that_unpacks_to_more_than_it_is_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "packed.pt2"
    with zipfile.ZipFile(files["torch"]) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(BundleError, match="it is compressed"):
        open_program(path)


def test_what_is_no_program_is_refused(tmp_path: Path, files: dict[str, Path]) -> None:
    for name, data in {"empty": b"", "text": b"hello", "cut": files["torch"].read_bytes()[:5000]}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(BundleError, match="is not opened"):
            checked_program(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "more.pt2", "w") as target, zipfile.ZipFile(files["torch"]) as source:
        for member in source.namelist():
            target.writestr(member, source.read(member))
        target.writestr(source.namelist()[0].split("/")[0] + "/data/aotinductor/model.so", b"")
    with pytest.raises(BundleError, match="aotinductor"):
        checked_program(tmp_path / "more.pt2")


def test_what_cannot_be_converted_is_named(tmp_path: Path, files: dict[str, Path], photos: Path) -> None:
    import onnx

    bundle = bundles.read(small_bundle(tmp_path / "bundle", photos))
    model = onnx.load(str(bundle.model))
    model.graph.node.append(onnx.helper.make_node("CumSum", ["features", "bank.k"], ["sums"]))
    onnx.save(model, str(bundle.model))
    with pytest.raises(BundleError, match="cannot be converted to PyTorch: CumSum") as caught:
        to_torch(bundle, tmp_path, lambda: pixels_of(photos))
    assert "--to openvino" in caught.value.fix
