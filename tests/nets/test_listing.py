"""What is found out of backbones, for a list of them to choose from."""

from __future__ import annotations

from pathlib import Path

from rehead.nets.listing import list_backbones


def test_backbones_are_listed_where_nothing_can_be_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    rows, _ = list_backbones("efficientnet_lite0", tmp_path / "file")
    assert [(row.name, row.input_size, row.width) for row in rows] == [("efficientnet_lite0", 224, 1280)]
