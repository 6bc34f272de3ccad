"""Every command that the README and the guide show is run as it stands, on small photos under the names they use."""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from conftest import noise
from safetensors.torch import save_file
from test_deeper import kill_when, start

Program = Callable[..., subprocess.CompletedProcess[str]]
REPOSITORY = Path(__file__).parents[1]
COLOURS = {"cat": (200, 60, 60), "dog": (60, 60, 200)}
INTERRUPTED = "runs/photos-efficientnet_lite0-2"


def shown() -> list[str]:
    """The commands in console blocks, in order, without their comments."""
    texts = [(REPOSITORY / name).read_text() for name in ("README.md", "docs/guide.md")]
    blocks = [block for text in texts for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL)]
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("$ rehead ")]
    return [re.sub(r"\s+#.*", "", line.removeprefix("$ rehead ")) for line in lines]


def photos(folder: Path, seed: int, name: str = "{label}/{i}.jpg", n: int = 12) -> Path:
    for label, colour in COLOURS.items():
        for i in range(n):
            path = folder / name.format(label=label, i=i)
            path.parent.mkdir(parents=True, exist_ok=True)
            noise(seed + i, colour).save(path, quality=95)
    return folder


@pytest.fixture
def desk(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all that the documents name."""
    for number, name in enumerate(("dogscats", "photos", "later_photos", "new_photos", "more_photos", "new")):
        photos(tmp_path / name, 10_000 + 100 * number)
    for number, side in enumerate(("train", "val", "test")):
        photos(tmp_path / "data" / side, 20_000 + 100 * number)
    photos(tmp_path / "train", 30_000, "{label}.{i}.jpg")
    photos(tmp_path / "holiday", 40_000, "{label}{i}.jpg")
    noise(1, COLOURS["cat"]).save(tmp_path / "cat.0.jpg")
    rows = [f"{path.relative_to(tmp_path)},{path.parent.name}" for path in sorted((tmp_path / "photos").glob("*/*"))]
    (tmp_path / "photos.csv").write_text("\n".join(["path,label", *rows]))
    ages = [f"{row.partition(',')[0]},{20 + i}" for i, row in enumerate(rows)]
    (tmp_path / "ages.csv").write_text("\n".join(["path,label", *ages]))
    shutil.make_archive(str(tmp_path / "photos"), "zip", tmp_path / "photos")
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards" / "train-0000.tar", "w") as shard:
        for number, path in enumerate(sorted((tmp_path / "photos").glob("*/*"))):
            shard.add(path, f"{number:06d}{path.suffix}")
            label = tarfile.TarInfo(f"{number:06d}.cls")
            label.size = len(path.parent.name)
            shard.addfile(label, io.BytesIO(path.parent.name.encode()))
    weights = dict(timm.create_model("resnet18").state_dict())
    save_file(weights, tmp_path / "resnet18.safetensors")
    torch.save(weights, tmp_path / "resnet18.pth")
    lower = {name: tensor for name, tensor in weights.items() if not name.startswith(("layer4", "fc"))}
    save_file(lower, tmp_path / "up_to_layer3.safetensors")
    torch.save(timm.create_model("mobilenetv2_100").state_dict(), tmp_path / "m.pth")
    run = tmp_path / INTERRUPTED
    assert kill_when(start(tmp_path / "photos", run, cache), run / "checkpoint.safetensors")
    return tmp_path


def served(command: str, cwd: Path) -> int:
    """The exit code of a service that was asked whether it is ready, and then told to end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = [sys.executable, "-m", "rehead", *shlex.split(command), "--port", str(port)]
    with subprocess.Popen(arguments, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        for _ in range(300):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                    break
            except OSError:
                assert process.poll() is None
                time.sleep(0.1)
        else:
            process.kill()
            raise AssertionError("never ready")
        process.send_signal(signal.SIGTERM)
        return process.wait(30)


@pytest.mark.slow
def test_every_command_in_the_readme_and_the_guide_runs(rehead: Program, desk: Path) -> None:
    assert len(shown()) > 20
    for command in shown():
        if command.startswith("serve "):
            assert served(command, desk) == 0, command
            continue
        if "colleague/bundle" in command and not (desk / "colleague").exists():
            shutil.copytree(desk / "runs/photos-efficientnet_lite0-1/bundle", desk / "colleague" / "bundle")
        done = rehead(*shlex.split(command), cwd=desk, HF_HUB_OFFLINE="1")
        code = 2 if "vit_small_patch16_224" in command else 0  # whose weights are on the hub alone
        assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"


def test_nothing_that_the_documents_show_is_missing_from_the_test() -> None:
    """Words that look like paths are those that `desk` makes, so that a new command is thought of here."""
    made = "dogscats photos later_photos new_photos more_photos new data train holiday/*.jpg cat.0.jpg named.csv photos.csv"
    known = {
        *made.split(),
        *["shards", "photos.zip", "plan.csv", "ages.csv", "resnet18.safetensors", "up_to_layer3.safetensors", "m.pth"],
    }
    known |= {"efficientnet_lite0,resnet18=resnet18.pth", "colleague/bundle"}
    for command in shown():
        for word in shlex.split(command):
            is_path = os.sep in word or re.search(r"\.(csv|zip|pth|jpg|safetensors)$", word)
            assert not is_path or word.rstrip("/") in known or word.startswith("runs/"), (command, word)
