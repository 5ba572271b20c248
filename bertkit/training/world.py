"""The ranks that train one run together, seen from one of them.

Training is handed a `World` and never asks how its ranks were started: alone in this process
(`SingleWorld`), or as Horovod's ranks (`HorovodWorld`) in ipyparallel engines or under
``horovodrun``. What moves values between ranks is collective: all ranks call it, in the same order.
Ranks may come and go where someone gathers them anew: when a collective fails because a rank was
lost, or while one waits to be taken in, those that are there `meet` and train on in a new world.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import groupby
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from bertkit.errors import TrainingError

Tensor = Any
Json = Any

COMPRESSIONS = ("none", "float16")
BROADCAST_BYTES = 64 * 2**20  # one message: large enough for full bandwidth, small enough to copy


def _nothing() -> None:
    pass


class World(Protocol):
    """The ranks of one run.

    Attributes:
        rank: Number of this rank, from 0.
        size: Number of ranks.
        host: Name of this rank's machine, as whoever started it calls it.
        news: What has happened to ranks before this world came together, a sentence each.
        detected: When that was noticed, in seconds since 1970.
    """

    rank: int
    size: int
    host: str
    news: Sequence[str]
    detected: float

    def meet(
        self, global_step: int | None = None, *, when_alone: Callable[[], object] = _nothing
    ) -> World:
        """Come together: first when all is prepared, then each time ranks are lost or wait.

        Args:
            global_step: The step this rank's weights are from; ``None`` if it has none of the
                run's. Rank 0 of the new world has the newest.
            when_alone: Called when nobody answers for a while: this rank may have been cut off
                from others that go on, and must not hold what they need.

        Returns:
            The world to go on in; this one is over.

        Raises:
            TrainingError: If nobody can gather the ranks anew.
        """
        ...

    @property
    def should_meet(self) -> bool:
        """Whether this rank has heard that the ranks should `meet` after the current step."""
        ...

    def working(self, stage: str) -> AbstractContextManager[object]:
        """Say what this rank does by itself, for as long as the others may have to wait for it."""
        ...

    def sum_tensors(
        self, tensors: Sequence[Tensor], *, compression: str = "none", name: str = "sum_tensors"
    ) -> list[Tensor]:
        """Add up tensors over all ranks, position by position; for use inside ``tf.function``.

        Args:
            tensors: Tensors of the same dtypes and shapes on every rank. bfloat16 travels as
                float32.
            compression: ``"float16"`` sends matrices in half precision. Vectors and scalars
                always travel whole: they are few bytes, and may hold counts.
            name: What the ranks know this sum by; sums under way at once need names of their own.

        Returns:
            The sums, each in its tensor's dtype, the same bits on every rank.
        """
        ...

    def broadcast(self, variables: Sequence[tf.Variable]) -> None:
        """Give every rank's variables the values of rank 0's, bit by bit."""
        ...

    def sum(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Add up an array over all ranks, in float64."""
        ...

    def gather(self, value: Json) -> list[Json] | None:
        """Collect one JSON value of each rank, in the order of the ranks.

        Returns:
            The values at rank 0, ``None`` elsewhere. As in JSON, tuples come back as lists and
            the names in a mapping as texts.
        """
        ...

    def share(self, value: Json) -> Json:
        """Rank 0's JSON value, at every rank; the other ranks' ``value`` is not looked at."""
        ...

    def barrier(self) -> None:
        """Wait until every rank has come here."""
        ...

    def abort(self) -> None:
        """Leave for good because this rank failed: the other ranks' collectives then fail too."""
        ...


class _StayTogether:
    """What worlds have in common whose ranks stay the same from beginning to end."""

    host: str = platform.node()
    news: Sequence[str] = ()
    detected: float = 0.0

    @property
    def should_meet(self) -> bool:
        """See `World`."""
        return False

    def working(self, stage: str) -> AbstractContextManager[object]:  # noqa: ARG002
        """See `World`."""
        return nullcontext()


class SingleWorld(_StayTogether):
    """The world of one rank.

    Args:
        host: What this machine is called; by default its own name.

    Example:
        >>> world = SingleWorld()
        >>> world.gather({"rank": world.rank})
        [{'rank': 0}]
    """

    rank: int = 0
    size: int = 1

    def __init__(self, host: str | None = None) -> None:
        self.host = host or self.host

    def meet(
        self,
        global_step: int | None = None,  # noqa: ARG002
        *,
        when_alone: Callable[[], object] = _nothing,  # noqa: ARG002
    ) -> World:
        """See `World`."""
        return self

    def sum_tensors(
        self, tensors: Sequence[Tensor], *, compression: str = "none", name: str = "sum_tensors"
    ) -> list[Tensor]:
        """See `World`."""
        del name
        _check_compression(compression)
        return [tf.convert_to_tensor(tensor) for tensor in tensors]

    def broadcast(self, variables: Sequence[tf.Variable]) -> None:
        """See `World`."""

    def sum(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """See `World`."""
        return np.array(values, np.float64)

    def gather(self, value: Json) -> list[Json] | None:
        """See `World`."""
        return [json.loads(json.dumps(value))]

    def share(self, value: Json) -> Json:
        """See `World`."""
        return json.loads(json.dumps(value))

    def barrier(self) -> None:
        """See `World`."""

    def abort(self) -> None:
        """See `World`."""


class HorovodWorld(_StayTogether):
    """The world of Horovod's ranks.

    Horovod must have been initialised in this process (``hvd.init()``); whoever did so also
    shuts it down. These ranks stay together: when one is lost, training ends.

    Raises:
        TrainingError: If Horovod is not initialised.
    """

    def __init__(self) -> None:
        # Imported here: it needs TensorFlow's libraries and a built extension, one rank does not.
        import horovod.tensorflow as hvd

        if not hvd.is_initialized():
            raise TrainingError(
                "this process is no Horovod rank; start it by bertkit's Cluster or by horovodrun"
            )
        self._hvd = hvd
        self.rank: int = hvd.rank()
        self.size: int = hvd.size()
        self._has_met = False

    def meet(
        self,
        global_step: int | None = None,  # noqa: ARG002
        *,
        when_alone: Callable[[], object] = _nothing,  # noqa: ARG002
    ) -> World:
        """See `World`."""
        if self._has_met:
            raise TrainingError(
                "another rank went away and these ranks were started to stay together; "
                "resume the run to go on from its newest checkpoint"
            )
        self._has_met = True
        return self

    def sum_tensors(
        self, tensors: Sequence[Tensor], *, compression: str = "none", name: str = "sum_tensors"
    ) -> list[Tensor]:
        """See `World`."""
        _check_compression(compression)
        tensors = [tf.convert_to_tensor(tensor) for tensor in tensors]
        travelling = [tf.cast(t, _travel_dtype(t, compression)) for t in tensors]
        sums: list[Tensor] = [None] * len(tensors)
        # Horovod groups tensors of one dtype only.
        by_dtype = sorted(range(len(tensors)), key=lambda i: str(travelling[i].dtype.name))
        for dtype, group in groupby(by_dtype, key=lambda i: str(travelling[i].dtype.name)):
            positions = list(group)
            # Horovod pairs the ranks' tensors by name. Names that TensorFlow makes up depend on
            # the graph, and ranks with batches of other shapes may have traced other graphs.
            summed = self._hvd.grouped_allreduce(
                [travelling[i] for i in positions],
                op=self._hvd.Sum,
                name=f"{name}_{len(positions)}_{dtype}",
                ignore_name_scope=True,
            )
            for position, value in zip(positions, summed, strict=True):
                sums[position] = tf.cast(value, tensors[position].dtype)
        return sums

    def broadcast(self, variables: Sequence[tf.Variable]) -> None:
        """See `World`."""
        for chunk in _chunks(variables):
            values = [_to_bytes(variable) for variable in chunk]
            received = self._hvd.broadcast(tf.concat(values, 0), 0, name="broadcast")
            if self.rank == 0:
                continue
            parts = tf.split(received, [int(value.shape[0]) for value in values])
            for variable, part in zip(chunk, parts, strict=True):
                variable.assign(_from_bytes(part, variable))

    def sum(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """See `World`."""
        array = np.asarray(values, np.float64)
        total = self._hvd.allreduce(tf.constant(array), op=self._hvd.Sum, name="sum")
        return np.array(total, np.float64).reshape(array.shape)

    def gather(self, value: Json) -> list[Json] | None:
        """See `World`."""
        lines = self._all_lines(json.dumps(value) + "\n")
        return [json.loads(line) for line in lines] if self.rank == 0 else None

    def share(self, value: Json) -> Json:
        """See `World`."""
        lines = self._all_lines(json.dumps(value) + "\n" if self.rank == 0 else "")
        return json.loads(lines[0])

    def barrier(self) -> None:
        """See `World`."""
        self.sum(np.zeros(1))

    def abort(self) -> None:
        """See `World`."""
        self._hvd.shutdown()

    def _all_lines(self, text: str) -> list[str]:
        """Every rank's lines, rank after rank; JSON on one line holds no line break itself."""
        mine = tf.constant(np.frombuffer(text.encode(), np.uint8))
        everyones = self._hvd.allgather(mine, name="gather").numpy()
        return bytes(everyones).decode().splitlines()


# Gloo tells of a rank that went away in the middle of a sum; later ones find Horovod shut down.
_LOSS = ("Horovod has been shut down", "gloo/transport/")


def is_loss_of_a_rank(error: BaseException | None) -> bool:
    """Whether an error only says that some other rank has gone.

    The cause is then to be found at that rank: it failed, was killed, or cannot be reached.

    Args:
        error: An exception that came out of a collective, or was caused by one that did.
    """
    while error is not None:
        if isinstance(error, tf.errors.OpError) and any(word in str(error) for word in _LOSS):
            return True
        error = error.__cause__ or error.__context__
    return False


def _check_compression(compression: str) -> None:
    if compression not in COMPRESSIONS:
        raise ValueError(
            f"compression is {compression!r}; expected one of {', '.join(COMPRESSIONS)}"
        )


def _travel_dtype(tensor: Tensor, compression: str) -> tf.DType:
    is_matrix = tensor.shape.rank is None or tensor.shape.rank > 1
    if compression == "float16" and tensor.dtype.is_floating and is_matrix:
        return tf.float16
    return tf.float32 if tensor.dtype == tf.bfloat16 else tensor.dtype


def _chunks(variables: Sequence[tf.Variable]) -> Iterator[list[tf.Variable]]:
    """Split variables into runs of at most `BROADCAST_BYTES`; a larger one stands alone."""
    chunk: list[tf.Variable] = []
    held = 0
    for variable in variables:
        size = _item_size(variable) * int(np.prod(variable.shape))
        if chunk and held + size > BROADCAST_BYTES:
            yield chunk
            chunk, held = [], 0
        chunk.append(variable)
        held += size
    if chunk:
        yield chunk


def _item_size(variable: tf.Variable) -> int:
    return int(tf.as_dtype(variable.dtype).size)


def _to_bytes(variable: tf.Variable) -> Tensor:
    """A variable's value as ``uint8 [bytes]``, so that any dtype travels, bit by bit."""
    value = tf.convert_to_tensor(variable)
    if value.dtype == tf.bool:
        value = tf.cast(value, tf.uint8)
    return tf.reshape(tf.bitcast(value, tf.uint8), [-1])


def _from_bytes(data: Tensor, variable: tf.Variable) -> Tensor:
    dtype = tf.as_dtype(variable.dtype)
    if dtype == tf.bool:
        return tf.cast(tf.reshape(data, variable.shape), tf.bool)
    words = [dtype.size] if dtype.size > 1 else []
    return tf.bitcast(tf.reshape(data, [*variable.shape, *words]), dtype)
