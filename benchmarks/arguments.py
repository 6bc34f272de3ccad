"""What arguments of the scripts may be: functions for argparse's `type`, which say what is wrong with others."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence


def some_of(choices: Sequence[str]) -> Callable[[str], list[str]]:
    """Names parted by commas, in the order of the choices."""

    def read(text: str) -> list[str]:
        if unknown := sorted({*text.split(",")} - {*choices}):
            raise ArgumentTypeError(f"{', '.join(unknown)}: choose among {', '.join(choices)}")
        return [name for name in choices if name in text.split(",")]

    return read


def numbers(text: str) -> list[int]:
    """Whole numbers parted by commas."""
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is no list of whole numbers, such as 0,1,2") from None


def count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)
