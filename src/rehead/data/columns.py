"""Rows and photos as columns, some 100 bytes a photo where objects of Python take 700; long ones lie in files (`spill.py`).

Each column is a sequence of what it holds: names are texts end to end, labels, sides and groups are numbers of names, digests
stand one behind the other. A row or a photo is made when it is asked for.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, Self, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from rehead.data.rows import Photo, Row
from rehead.data.spill import Numbers

DIGEST = 32  # bytes of BLAKE3
T = TypeVar("T")


class Column(Sequence[T], Generic[T]):
    """What all columns share. A kind of column says how one item is had by its place, 0 and up."""

    @abstractmethod
    def _at(self, i: int) -> T: ...

    @overload
    def __getitem__(self, i: int) -> T: ...
    @overload
    def __getitem__(self, i: slice) -> list[T]: ...
    def __getitem__(self, i: int | slice) -> T | list[T]:
        if isinstance(i, slice):
            return [self._at(place) for place in range(*i.indices(len(self)))]
        place = i if i >= 0 else i + len(self)
        if not 0 <= place < len(self):
            raise IndexError(i)
        return self._at(place)

    def __iter__(self) -> Iterator[T]:
        return map(self._at, range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(self) != len(other):
            return False
        return all(a == b for a, b in zip(self, other, strict=True))

    def __repr__(self) -> str:
        return f"{type(self).__name__} of {len(self):,}"


class Held(Column[T]):
    """A column that holds its items itself, and can be given more."""

    def __init__(self, items: Iterable[T] = ()) -> None:
        for item in items:
            self.append(item)

    @abstractmethod
    def append(self, item: T) -> None: ...

    def without(self, places: Collection[int]) -> Self:
        """The column without the items at these places; the same where there are none."""
        return type(self)(item for i, item in enumerate(self) if i not in places) if places else self


class Chosen(Column[T]):
    """What stands at these places of a column, made when it is asked for."""

    def __init__(self, column: Column[T], places: Sequence[int] | NDArray[np.int64]) -> None:
        self._column, self._places = column, places

    def _at(self, i: int) -> T:
        return self._column._at(self._places[i])

    def __len__(self) -> int:
        return len(self._places)


class Renamed(Column[T]):
    """The items of a sequence, some of them by another name. names: that, by the item."""

    def __init__(self, items: Sequence[T], names: Mapping[T, T]) -> None:
        self._items, self._names = items, names

    def _at(self, i: int) -> T:
        item = self._items[i]
        return self._names.get(item, item)

    def __len__(self) -> int:
        return len(self._items)


class Positions(Column[int]):
    """Positions in a catalog, 8 bytes each."""

    def __init__(self, positions: Sequence[int] | NDArray[np.integer[Any]] = ()) -> None:
        self._positions = np.asarray(positions, np.int64).view()
        self._positions.flags.writeable = False

    def _at(self, i: int) -> int:
        return int(self._positions[i])

    def __len__(self) -> int:
        return len(self._positions)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self._positions, dtype) if copy else np.asarray(self._positions, dtype)


class Texts(Held[str]):
    """Texts, most of them different; of any kind: names of files may hold surrogates."""

    def __init__(self, items: Iterable[str] = (), spills: bool = True) -> None:
        self._data, self._ends = Numbers("B", spills), Numbers("q", spills)
        self._ends.append(0)
        super().__init__(items)

    def append(self, item: str) -> None:
        self._data.extend(item.encode("utf-8", "surrogatepass"))
        self._ends.append(len(self._data))

    def extend(self, other: Texts, begin: int = 0, end: int | None = None) -> None:
        """The others from one place to another come behind."""
        end = len(other) if end is None else end
        start, shift = other._ends[begin], len(self._data)
        for data in other._data.blocks(start, other._ends[end]):
            self._data.extend(data.tobytes())
        for ends in other._ends.blocks(begin + 1, end + 1):
            self._ends.extend((ends + (shift - start)).tobytes())

    def _at(self, i: int) -> str:
        return self._data.data(*self._ends.two(i)).decode("utf-8", "surrogatepass")

    def __len__(self) -> int:
        return len(self._ends) - 1


class Names(Held[T]):
    """Names of which many are the same, or None. different: each once."""

    def __init__(self, items: Iterable[T] = ()) -> None:
        self._numbers = Numbers("i")
        self._number: dict[T, int] = {}
        self.different: list[T] = []
        super().__init__(items)

    def append(self, item: T) -> None:
        number = self._number.get(item)
        if number is None:
            number = self._number[item] = len(self.different)
            self.different.append(item)
        self._numbers.append(number)

    def _at(self, i: int) -> T:
        return self.different[self._numbers[i]]

    def __len__(self) -> int:
        return len(self._numbers)

    def numbers(self) -> NDArray[np.int32]:
        """Of each its place in `different`, (n,), to be read only."""
        return self._numbers.all()

    def each(self, told: Callable[[T], Any], dtype: Any) -> NDArray[Any]:
        """What `told` says of each name, (n,); it is asked once for each that is different."""
        return np.array([told(name) for name in self.different], dtype)[self.numbers()]


class Digests(Held[bytes]):
    """Digests, 32 bytes each."""

    def __init__(self, items: Iterable[bytes] = ()) -> None:
        self._data = Numbers("B")
        super().__init__(items)

    def append(self, item: bytes) -> None:
        if len(item) != DIGEST:
            raise ValueError(f"A digest of {len(item)} bytes, where {DIGEST} are wanted.")
        self._data.extend(item)

    def _at(self, i: int) -> bytes:
        return self._data.data(DIGEST * i, DIGEST * (i + 1))

    def __len__(self) -> int:
        return len(self._data) // DIGEST

    def same(self) -> list[list[int]]:
        """The places of equal digests, see `equal_rows`."""
        return equal_rows(self._data.all().view(np.uint64).reshape(-1, DIGEST // 8))


def equal_rows(rows: NDArray[np.uint64]) -> list[list[int]]:
    """The places of rows (n, k) that are equal, where there are several, in the order of the first of each."""
    begins = rows[:, 0].copy()
    order = np.argsort(begins, kind="stable")
    is_next = begins[order[1:]] == begins[order[:-1]]
    found: dict[bytes, list[int]] = {}
    for place in np.unique([order[:-1][is_next], order[1:][is_next]]).tolist():
        found.setdefault(rows[place].tobytes(), []).append(place)
    return [places for places in found.values() if len(places) > 1]


class Rows(Held[Row]):
    """Rows of a source."""

    def __init__(self, items: Iterable[Row] = ()) -> None:
        self.paths = Texts()
        self.labels, self.sides, self.groups = Names[str](), Names[str | None](), Names[str | None]()
        super().__init__(items)

    @classmethod
    def of(cls, paths: Texts, labels: Names[str], sides: Names[str | None], groups: Names[str | None]) -> Self:
        """Rows whose columns are these, each as long as the others."""
        rows = cls()
        rows.paths, rows.labels, rows.sides, rows.groups = paths, labels, sides, groups
        return rows

    def append(self, item: Row) -> None:
        self.paths.append(item.path)
        self.labels.append(item.label)
        self.sides.append(item.side)
        self.groups.append(item.group)

    def _at(self, i: int) -> Row:
        return Row(self.paths._at(i), self.labels._at(i), self.sides._at(i), self.groups._at(i))

    def __len__(self) -> int:
        return len(self.paths)


class Photos(Held[Photo]):
    """Photos of a catalog."""

    def __init__(self, items: Iterable[Photo] = ()) -> None:
        self.paths, self.digests = Texts(), Digests()
        self.labels, self.sides, self.groups = Names[str](), Names[str](), Names[str | None]()
        super().__init__(items)

    @classmethod
    def of(
        cls, paths: Texts, labels: Names[str], sides: Names[str], digests: Digests, groups: Names[str | None]
    ) -> Self:
        """Photos whose columns are these, each as long as the others."""
        photos = cls()
        photos.paths, photos.labels, photos.sides, photos.digests, photos.groups = paths, labels, sides, digests, groups
        return photos

    def on_side(self, places: Collection[int], side: str) -> Photos:
        """The photos with those at these places on this side."""
        sides = Names(side if i in places else own for i, own in enumerate(self.sides))
        return Photos.of(self.paths, self.labels, sides, self.digests, self.groups)

    def append(self, item: Photo) -> None:
        self.paths.append(item.path)
        self.labels.append(item.label)
        self.sides.append(item.side)
        self.digests.append(item.digest)
        self.groups.append(item.group)

    def _at(self, i: int) -> Photo:
        return Photo(self.paths._at(i), self.labels._at(i), self.sides._at(i), self.digests._at(i), self.groups._at(i))

    def __len__(self) -> int:
        return len(self.paths)
