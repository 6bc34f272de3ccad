"""Lines of code that a user writes: what is neither blank, nor a comment, nor a docstring, nor there for the benchmark."""

from __future__ import annotations

import ast
from pathlib import Path

BEGIN, END = "# for the benchmark", "# end"


def user_lines(program: Path) -> int:
    """The lines of a Python or shell program outside of the blocks from `# for the benchmark` to `# end`.

    Raises ValueError for a block that does not end, or ends twice.
    """
    text = program.read_text(encoding="utf-8")
    said = _docstrings(text) if program.suffix == ".py" else set()
    n, inside = 0, False
    for number, line in enumerate(text.splitlines(), 1):
        word = line.strip()
        if word in (BEGIN, END):
            if inside == (word == BEGIN):
                raise ValueError(
                    f"{program}, line {number}: {word!r} where a block is {'open' if inside else 'closed'}."
                )
            inside = word == BEGIN
        elif not inside and word and not word.startswith("#") and number not in said:
            n += 1
    if inside:
        raise ValueError(f"{program}: a block begins with {BEGIN!r} and does not end.")
    return n


def _docstrings(text: str) -> set[int]:
    """The numbers of the lines of docstrings."""
    lines: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                lines.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return lines
