"""The engine: a bounded queue of jobs in memory, with one thread a device that works on them."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..files.images import image_size
from ..inference.devices import pick_device
from ..inference.precision import Precision
from ..models.zoo import CLASSICAL, MODELS
from ..restoration.enlargement import Enlargement
from .jobs import Job, State, Stopped, Watch
from .limits import Limits, Refused, check_pixels
from .order import Order
from .work import Restorers, Result, restore_file

log = logging.getLogger(__name__)


class Engine:
    """Takes jobs, works on them in their order, and keeps the results until they are fetched or crowded out.

    Args:
        limits: the bounds.
        devices: one thread works on each; names as `Restorer` has them.
        precision: as `Restorer` has it.
        max_memory: bytes for the network of each device.
        files: weight files beside the models that come with nlrn, by name.

    Raises:
        ValueError: a device that is not there.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        devices: Sequence[str] = ("auto",),
        precision: Precision = "auto",
        max_memory: int | None = None,
        files: Mapping[str, Path] | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.files = dict(files or {})
        self.devices = [str(pick_device(device)) for device in devices]
        self.finished: Counter[State] = Counter()
        self.work_seconds = 0.0
        # Seconds a megapixel of the last job, by task, model and steps.
        self.speeds: dict[tuple[str, str, int | None], float] = {}
        self._held = 0
        self._waiting: deque[Job] = deque()
        self._running: set[Job] = set()
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._closed = False
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(
                target=self._serve,
                args=(
                    Restorers(
                        device,
                        pixels=self.limits.pixels,
                        precision=precision,
                        max_memory=max_memory,
                        files=self.files,
                    ),
                ),
                name=f"nlrn-{device}",
                daemon=True,
            )
            for device in self.devices
        ]

    @property
    def models(self) -> list[str]:
        """The names that an order may have."""
        return [*MODELS, *CLASSICAL, *self.files]

    @property
    def held(self) -> int:
        """Bytes of uploads and results in memory."""
        return self._held

    @property
    def waiting(self) -> int:
        """The number of jobs that wait."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """The number of jobs that are worked on."""
        return len(self._running)

    def start(self) -> None:
        """Begins to work."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Cancels everything and waits for the work to stop, at the next step or band."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            jobs = list(self._jobs.values())
        for job in jobs:
            self.cancel(job)
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=30)

    def reserve(self, count: int) -> None:
        """Counts bytes that are about to be held; finished jobs are dropped for them, the oldest first.

        Raises:
            Refused: 503, there is no room.
        """
        with self._changed:
            while self._held + count > self.limits.memory and self._drop_oldest():
                pass
            if self._held + count > self.limits.memory:
                raise Refused(
                    503,
                    "the memory of the server is full; try again later",
                    expected=f"at most {self.limits.memory} bytes of uploads and results",
                    got=f"{self._held + count} bytes",
                )
            self._held += count

    def release(self, count: int) -> None:
        """The end of `reserve`."""
        with self._changed:
            self._held -= count

    def submit(self, order: Order, upload: bytes) -> Job:
        """Queues a job; the bytes of the upload, which were reserved, are the job's from now on.

        Raises:
            Refused: 413, more pixels than are allowed; 422, a scale that the image cannot have; 429, the queue is full;
                503, the server stops.
            ImageError: not an image.
        """
        width, height = image_size(upload)
        check_pixels(self.limits.pixels, width, height)
        # The other enlargements depend on how viewers turn the picture, which the work on it finds out.
        if order.scale is not None and order.region is None:
            try:
                height, width = Enlargement(order.scale).of(height, width).size
            except ValueError as error:
                raise Refused(422, str(error)) from error
            check_pixels(self.limits.pixels, width, height)
        job = Job(order, upload)
        with self._changed:
            if self._closed:
                raise Refused(503, "the server is about to stop")
            if len(self._waiting) >= self.limits.queue:
                raise Refused(
                    429,
                    "the queue is full; try again later",
                    expected=f"at most {self.limits.queue} jobs that wait",
                    got=f"{len(self._waiting)} that wait",
                )
            self._waiting.append(job)
            self._jobs[job.id] = job
            while len(self._jobs) > self.limits.jobs + self.limits.queue and self._drop_oldest():
                pass
            self._changed.notify()
        return job

    def job(self, name: str) -> Job:
        """The job of an id.

        Raises:
            Refused: 404, there is none.
        """
        job = self._jobs.get(name)
        if job is None:
            raise Refused(404, "no such job: it is unknown, was deleted, or was dropped to make room")
        return job

    def position(self, job: Job) -> int | None:
        """The number of jobs before one that waits."""
        with self._changed:
            return self._waiting.index(job) if job in self._waiting else None

    def cancel(self, job: Job) -> None:
        """Stops a job: at once if it waits, at the next step or band if it is worked on."""
        job.stop.set()
        with self._changed:
            if job not in self._waiting:
                return
            self._waiting.remove(job)
            self._finish(job, None)
        job.changed()

    def forget(self, job: Job) -> None:
        """Cancels a job and drops what is left of it."""
        self.cancel(job)
        with self._changed:
            self._drop(job)

    def _drop_oldest(self) -> bool:
        """Drops the oldest finished job; false where there is none."""
        oldest = next((job for job in self._jobs.values() if job.finished), None)
        if oldest is not None:
            self._drop(oldest)
        return oldest is not None

    def _drop(self, job: Job) -> None:
        if self._jobs.pop(job.id, None) is not None and job.result is not None:
            self._held -= len(job.result.data)

    def _finish(self, job: Job, outcome: Result | Refused | None) -> None:
        """The last change of a job, by a result that was reserved, an error, or neither; its upload is let go."""
        self._held -= len(job.upload or b"")
        job.upload = None
        if isinstance(outcome, Refused):
            job.state, job.error = "failed", outcome
        elif outcome is None:
            job.state = "cancelled"
        elif job.id not in self._jobs:  # forgotten meanwhile
            job.state = "cancelled"
            self._held -= len(outcome.data)
        else:
            job.state, job.result, job.fraction = "done", outcome, 1.0
            self._note_speed(job.order, outcome)
        self.finished[job.state] += 1

    def _serve(self, restorers: Restorers) -> None:
        """The life of a worker thread."""
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                job = self._waiting.popleft()
                job.state = "running"
                self._running.add(job)
            job.changed()
            started = time.monotonic()
            outcome = self._run(job, restorers)
            with self._changed:
                self._running.discard(job)
                job.seconds = time.monotonic() - started
                self.work_seconds += job.seconds
                self._finish(job, outcome)
            job.changed()

    def _run(self, job: Job, restorers: Restorers) -> Result | Refused | None:
        """Works on a job; `None` if it was cancelled."""
        job.deadline = time.monotonic() + self.limits.seconds
        assert job.upload is not None
        try:
            result = restore_file(job.order, job.upload, restorers, Watch(job))
            self.reserve(len(result.data))
        except Stopped:
            limit = f"at most {self.limits.seconds:g} s of work"
            late = Refused(504, "the work took too long", expected=limit, got=f"{job.seconds:.1f} s")
            return None if job.stop.is_set() else late
        except Refused as error:
            return error
        except ValueError as error:
            return Refused(422, " ".join(str(error).split()))
        except MemoryError as error:
            return Refused(503, f"there is too little memory: {error}")
        except Exception:
            log.exception("a job failed")
            return Refused(500, "the server failed; its log says why")
        return result

    def _note_speed(self, order: Order, result: Result) -> None:
        key = (order.task, result.report.model, order.steps)
        self.speeds[key] = result.report.seconds / (result.width * result.height / 1e6)
