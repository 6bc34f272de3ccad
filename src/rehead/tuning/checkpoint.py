"""All that an exact resume needs, in one safetensors file that appears whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from rehead.durable import write_bytes
from rehead.errors import RunError
from rehead.tuning.state import State

FORMAT = 1
FILE = "checkpoint.safetensors"


def write_checkpoint(run: Path, state: State) -> None:
    """Writes the state into a run's folder, in place of the one before."""
    facts = {name: value for name, value in vars(state).items() if name != "tensors"}
    metadata = {"format": str(FORMAT), "state": json.dumps(facts)}
    write_bytes(run / FILE, save({n: t.contiguous() for n, t in state.tensors.items()}, metadata))


def read_checkpoint(run: Path) -> State | None:
    """The state in a run's folder, None when there is none. Raises RunError when it is damaged or newer."""
    path = run / FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            number = int(metadata.get("format", 0))
            if number > FORMAT:
                raise RunError(
                    what=f"The checkpoint has format {number}; this rehead reads up to {FORMAT}.",
                    fix="Update with: pip install --upgrade rehead",
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
        return State(**json.loads(metadata["state"]), tensors=tensors)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            what=f"The checkpoint {path} is damaged.",
            why=str(error),
            fix=f"Remove it; training then begins anew: {path}",
        ) from error
