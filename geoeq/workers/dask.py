"""The workers of a Dask cluster: how they are found and given work, and what is said when they have gone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import geoeq
from geoeq.errors import DataError, GeoeqError, InputError
from geoeq.resources import import_extra

__all__ = ["Cluster", "Task"]

#: Seconds in which a scheduler has to answer, and in which a file of another machine has to be seen here.
_PATIENCE = 30.0

#: Seconds between looks at a cluster that computes, and without a worker after which it is given up.
_LOOK, _ALONE = 5.0, 600.0


class Cluster:
    """The workers of a cluster; a context manager that leaves it. They have geoeq, and see the same files.

    Args:
        address: of the scheduler, as in ``tcp://HOST:8786``.

    Attributes:
        address: the same.
        count: threads of all workers.

    Raises:
        InputError: no scheduler answers there, or it has no workers.
        MissingExtraError: the extra "dask" is not installed.
    """

    def __init__(self, address: str) -> None:
        distributed = import_extra("distributed", "dask")
        self.address = address
        self._killed: type[Exception] = distributed.KilledWorker
        try:
            self._client = distributed.Client(address, timeout=_PATIENCE, set_as_default=False)
        except (OSError, ValueError) as error:
            raise InputError(
                f"No Dask scheduler answers at {address} ({error}); tcp://HOST:8786 is the usual form."
            ) from error
        self.count = sum(self._client.nthreads().values())
        if self.count == 0:
            self._client.close()
            raise InputError(f"The Dask scheduler at {address} has no workers; start some: dask worker {address}.")
        self._lock = threading.Lock()
        self._looked = self._seen = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Task:
        """Have a worker compute ``function(*arguments)``; another one does where that dies."""
        return Task(self, self._client.submit(function, *arguments, pure=False), self._killed)

    def on_all(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Have each worker compute it now, beside its work; errors are passed over."""
        self._client.run(function, *arguments, on_error="ignore")

    def look(self) -> None:
        """See that there still are workers, now and then.

        Raises:
            DataError: there have been none for ten minutes.
        """
        with self._lock:
            now = time.monotonic()
            if now - self._looked < _LOOK:
                return
            self._looked = now
            if self._client.nthreads():
                self._seen = now
            elif now - self._seen >= _ALONE:
                raise DataError(
                    f"The Dask cluster at {self.address} has had no workers for {_ALONE / 60:.0f} minutes. What was "
                    "done is kept: start some, and the same command goes on."
                )


class Task:
    """What a cluster was asked for; ``Cluster.submit`` makes it."""

    def __init__(self, cluster: Cluster, future: Any, killed: type[Exception]) -> None:
        self._cluster, self._future, self._killed = cluster, future, killed

    def cancel(self) -> None:
        """Wait for it no longer."""
        self._future.cancel()

    def result(self, path: Path) -> Any:
        """What the function returned, when it has, and when the file that it has written is seen here.

        Args:
            path: of the file; there is none where the function returns anything but None.

        Raises:
            ChildProcessError: one worker after another died of it.
            DataError: the cluster has gone, or the file is not seen here.
            InputError: the workers have no geoeq, or another one.
            Exception: whatever the function raises.
        """
        done = threading.Event()
        self._future.add_done_callback(lambda _: done.set())
        while not done.wait(_LOOK) and not self._future.done():
            self._cluster.look()
        try:
            found = self._future.result()
        except self._killed as error:
            raise ChildProcessError(f"one Dask worker after another was ended by it ({error})") from error
        except (CancelledError, OSError) as error:
            raise DataError(
                f"The Dask scheduler at {self._cluster.address} has gone. What was done is kept: the same command goes "
                "on, with the address of another."
            ) from error
        except (ImportError, RuntimeError) as error:
            if not isinstance(error, GeoeqError) and (isinstance(error, ImportError) or "deserializ" in str(error)):
                raise InputError(
                    f"Dask at {self._cluster.address} cannot read its work ({error}): the scheduler and its workers "
                    f"need geoeq {geoeq.__version__} and what it stands on, as here."
                ) from error
            raise
        finally:
            self._future.release()  # or it would be computed again where the worker that did it dies
        until = time.monotonic() + _PATIENCE
        while found is None and not path.exists():  # what another machine writes may be seen late
            if time.monotonic() > until:
                raise DataError(f"{path}: a Dask worker wrote it, and it is not there: all machines have to see it.")
            time.sleep(0.1)
        return found
