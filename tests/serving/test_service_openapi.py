"""The description of what can be asked holds: Schemathesis asks what it allows, and what it does not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from little import bundle, picture
from served import Here, here

SCHEMATHESIS = [sys.executable, "-m", "schemathesis.cli", "run", "--no-color", "--seed", "1"]
NOT_DESCRIBED = "positive_data_acceptance"  # a schema says "binary"; which bytes are a picture it cannot say: 422


def asked(running: Here, tmp_path: Path, n_examples: int, *more: str) -> None:
    done = subprocess.run(
        [*SCHEMATHESIS, f"http://127.0.0.1:{running.port}/openapi.json", "--max-examples", str(n_examples),
         "--exclude-checks", NOT_DESCRIBED, *more],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "8 selected / 8 total" in done.stdout
    failed = [line for line in running.said if line["event"] == "failed" or line.get("status") == 500]
    assert not failed


@pytest.mark.long
def test_what_is_described_is_so(tmp_path: Path) -> None:
    with here({"little": bundle(tmp_path / "bundle")}) as running:
        asked(running, tmp_path, 5)


@pytest.mark.slow
def test_what_is_described_is_so_at_length_and_with_a_token(tmp_path: Path) -> None:
    token = "correct-horse-battery-staple"
    with here({"little": bundle(tmp_path / "bundle")}, token=token) as running:
        asked(running, tmp_path, 300, "--header", f"Authorization: Bearer {token}")


@pytest.mark.slow
def test_the_check_can_fail(tmp_path: Path) -> None:
    """A description that lacks what the service does is found out."""
    from rehead.serving import routes

    route = next(route for route in routes.router.routes if getattr(route, "path", "") == "/v1/predict")
    responses = dict(route.responses)  # type: ignore[attr-defined]
    route.responses.pop(404)  # type: ignore[attr-defined]
    route.response_fields.pop(404)  # type: ignore[attr-defined]
    try:
        with here({"little": bundle(tmp_path / "bundle")}) as running, pytest.raises(AssertionError, match="404"):
            asked(running, tmp_path, 10)
    finally:
        route.responses.update(responses)  # type: ignore[attr-defined]
    shutil.rmtree(tmp_path / ".schemathesis", ignore_errors=True)


def test_every_answer_fits_its_schema(tmp_path: Path) -> None:
    import jsonschema_rs

    with here({"little": bundle(tmp_path / "bundle")}) as running:
        whole = running.get("/openapi.json").json
        for query in ("", "?explain=true&nearest=3&top=1"):
            answer = running.predict_form([("a", picture()), ("b", b"x")], query)
            schema = {"$ref": "#/components/schemas/Answer", "components": whole["components"]}
            jsonschema_rs.validator_for(schema).validate(answer.json)
        schema = {"$ref": "#/components/schemas/Models", "components": whole["components"]}
        jsonschema_rs.validator_for(schema).validate(running.get("/v1/model").json)
