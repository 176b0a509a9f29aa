"""The run on Ray with a Ray of a few lines, whose workers can be lost; `test_ray_command.py` has the real one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from nlrn.batch.events import Failed, Restored, Skipped
from nlrn.batch.file_options import FileOptions
from nlrn.batch.job import Job, PlanError
from nlrn.batch.journal import Journal
from nlrn.batch.ray_engine import TRIES, run_on_ray
from nlrn.files.images import Image, read_image, write_image
from nlrn.restoration.options import Options

FILES = FileOptions(20.0, 95, False)
OPTIONS = Options("gaussian", device="cpu")


class RayError(Exception):
    """As Ray has it."""


class Lost(RayError):
    """A worker was lost."""


class FakeRay(ModuleType):
    """Tasks run where they are started; `before` and `after` of a task may raise."""

    def __init__(self) -> None:
        super().__init__("ray")
        self.before: Callable[[Job], None] = lambda job: None
        self.after: Callable[[Job], None] = lambda job: None
        self.cores = [2.0]
        self.started: list[str] = []
        self.open = 0
        self.needs: dict[str, int] = {}
        names = ("WorkerCrashedError", "OutOfMemoryError", "NodeDiedError", "ObjectLostError")
        self.exceptions = SimpleNamespace(RayError=RayError, **dict.fromkeys(names, Lost))

    def init(self, address: str, **settings: object) -> None:
        self.open += 1

    def shutdown(self) -> None:
        self.open -= 1

    def nodes(self) -> list[dict]:
        return [{"Alive": True, "Resources": {"CPU": count}} for count in self.cores]

    def put(self, value: object) -> object:
        return value

    def remote(self, **needs: int) -> Callable[[Callable], SimpleNamespace]:
        self.needs = needs
        return lambda function: SimpleNamespace(remote=lambda *given: self._start(function, *given))

    def _start(self, function: Callable, job: Job, *more: object) -> tuple[int, object]:
        self.started.append(Path(job.target).name)
        try:
            self.before(job)
            outcome: object = function(job, *more)
            self.after(job)
        except RayError as error:
            outcome = error
        return len(self.started), outcome

    def wait(self, running: list, num_returns: int) -> tuple[list, list]:
        return running[:1], running[1:]

    def get(self, reference: tuple[int, object]) -> object:
        if isinstance(reference[1], Exception):
            raise reference[1]
        return reference[1]


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake)
    return fake


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Job, ...]:
    """Relative names, as the command line has them."""
    monkeypatch.chdir(tmp_path)
    for folder in ("in", "out"):
        Path(folder).mkdir()
    found = tuple(Job(Path("in") / name, Path("out") / name) for name in ("0.png", "1.png", "2.png"))
    for number, job in enumerate(found):
        write_image(Image(np.full((12, 14), 40 * number, np.uint8)), job.source)
    return found


def once(name: str, error: Exception) -> Callable[[Job], None]:
    """Raises an error at the first task of a file."""
    left = [error]

    def stage(job: Job) -> None:
        if Path(job.target).name == name and left:
            raise left.pop()

    return stage


def test_files_are_restored_and_noted(ray, jobs):
    jobs[1].source.write_bytes(b"no picture")
    with Journal(Path("out"), {}, resume=False) as journal:
        events = list(run_on_ray(jobs, OPTIONS, FILES, journal=journal))
        assert [type(event) for event in events] == [Restored, Failed, Restored]
        assert [event.job for event in events] == list(jobs)
        assert [journal.claim(job) for job in jobs] == ["done", "again", "done"]
    assert read_image("out/2.png").pixels[0, 0] == 80
    assert ray.open == 0


def test_what_a_lost_worker_had_is_done_again(ray, jobs):
    ray.before = once("1.png", Lost())
    with Journal(Path("out"), {}, resume=False) as journal:
        events = list(run_on_ray(jobs, OPTIONS, FILES, journal=journal))
        assert {journal.claim(job) for job in jobs} == {"done"}
    assert sorted(str(event.job.target) for event in events if isinstance(event, Restored)) == [
        str(job.target) for job in jobs
    ]
    assert sorted(ray.started) == ["0.png", "1.png", "1.png", "2.png"]


def test_a_result_that_a_lost_worker_has_written_is_not_written_again(ray, jobs):
    ray.after = once("1.png", Lost())
    with Journal(Path("out"), {}, resume=False) as journal:
        events = list(run_on_ray(jobs, OPTIONS, FILES, journal=journal))
        assert {journal.claim(job) for job in jobs} == {"done"}
    assert [type(event) for event in events] == [Restored, Skipped, Restored]
    assert ray.started == ["0.png", "1.png", "2.png"]


def test_a_file_that_kills_its_workers_fails(ray, jobs):
    def deadly(job: Job) -> None:
        if Path(job.target).name == "1.png":
            raise Lost

    ray.before = deadly
    events = list(run_on_ray(jobs, OPTIONS, FILES))
    (failed,) = (event for event in events if isinstance(event, Failed))
    assert "3 workers that restored it were lost" in str(failed.error)
    assert ray.started.count("1.png") == TRIES == 3
    assert len(events) == 3


def test_a_cluster_that_does_not_fit_ends_the_batch(ray, jobs):
    ray.before = once("0.png", RayError("traceback\nModuleNotFoundError: No module named 'nlrn'"))
    with pytest.raises(PlanError, match="Ray cannot go on: ModuleNotFoundError: No module named 'nlrn'"):
        list(run_on_ray(jobs, OPTIONS, FILES))
    assert ray.open == 0
    ray.cores = [0.0]
    with pytest.raises(PlanError, match="the Ray cluster has no cores"):
        list(run_on_ray(jobs, OPTIONS, FILES))


@pytest.mark.parametrize(("cores", "processes", "threads"), [([8, 16], 1, 8), ([8, 16], 4, 2), ([2], 5, 1)])
def test_the_cores_of_a_task(ray, jobs, cores, processes, threads):
    ray.cores = [*cores, 0]  # a head without work
    list(run_on_ray(jobs[:1], OPTIONS, FILES, processes=processes))
    assert ray.needs == {"num_cpus": threads, "num_gpus": 0, "max_retries": 0}


def test_another_version_on_a_worker_is_refused(ray, jobs, monkeypatch):
    from nlrn.batch import ray_engine

    put = ray.put
    monkeypatch.setattr(ray, "put", lambda value: put((value[0], "0.0.0", value[2])))
    with pytest.raises(RuntimeError, match=r"the driver has nlrn 0.0.0, and a worker has \d"):
        list(ray_engine.run_on_ray(jobs, OPTIONS, FILES))
