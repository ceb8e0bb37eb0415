"""Rows of Parquet files, a few of them in memory at a time."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

# A row may hold a photo or the returns of a laser scanner.
ROWS_AT_A_TIME = 8


def problems(path: Path, columns: Collection[str]) -> list[str]:
    """Returns what is wrong with the footer of a file that should have these columns."""
    if not path.is_file():
        return [f"{path} is missing"]
    try:
        names = _open(path).schema.names
    except ValueError as error:
        return [str(error)]
    return [f"{path} has no column {name}" for name in columns if name not in names]


def rows(
    path: Path,
    columns: Mapping[str, str],
    *,
    where: Mapping[str, Collection[int]] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yields the rows of a file: arrays for lists, None for what a row lacks.

    Args:
      columns: key in what is yielded -> name of the column.
      where: name of a column -> the numbers that it may hold, for the rows that are wanted.

    Raises:
      ValueError: in one line, for a file that is missing, damaged or without such a column.
    """
    dataset = _open(path)
    field = _pyarrow().field
    wanted = None
    for name, numbers in (where or {}).items():
        here = field(name).isin(list(numbers))
        wanted = here if wanted is None else wanted & here
    batches = dataset.to_batches(
        columns={key: field(name) for key, name in columns.items()},
        filter=wanted,
        batch_size=ROWS_AT_A_TIME,
        batch_readahead=1,
        fragment_readahead=1,
        use_threads=False,
    )
    try:
        for batch in batches:
            for index in range(batch.num_rows):
                yield {key: _value(batch.column(key)[index]) for key in columns}
    # pyarrow's errors for damaged files and columns of other types are of all these kinds.
    except (ValueError, OSError, TypeError, NotImplementedError) as error:
        raise _damaged(path, error) from error


def _value(scalar: Any) -> Any:
    values = getattr(scalar, "values", None)
    # The scalars of lists have `values`, which is None for a list that is missing.
    return scalar.as_py() if values is None else values.to_numpy(zero_copy_only=False)


def _open(path: Path) -> Any:
    try:
        return _pyarrow().dataset(path, format="parquet")
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing") from error
    except (ValueError, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ValueError:
    reason = " ".join(str(error).split())
    return ValueError(f"{path} can't be read as Parquet: it is damaged ({reason[-120:]})")


def _pyarrow() -> ModuleType:
    # Here, because only this set needs it.
    try:
        import pyarrow.dataset
    except ImportError as error:
        raise ValueError(
            f"Parquet files need pyarrow ({error}): run pip install -e '.[waymo]' in the clone"
        ) from error
    return pyarrow.dataset
