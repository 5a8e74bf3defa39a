"""What only a fresh process shows: peak memory, start-up, the first result.

`python -m benchmarks.fresh TASK PRECISION RUNTIME` does one task and prints its peak memory.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .timing import Timing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[1]

IMPORT = ("-c", "import napari_lightsam")
HELP = ("-c", "import sys; from napari_lightsam.cli import main; sys.argv = ['lightsam', '--help']; main()")


def peak_memory() -> float | None:
    """Return the largest resident memory of this process so far in MiB; None where it cannot be told."""
    peak = _from_status("VmHWM")  # getrusage would count the parent's memory at the time of the fork, too
    if peak is not None:
        return peak
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def resident_memory() -> float | None:
    """Return the resident memory of this process now in MiB; None where it cannot be told."""
    return _from_status("VmRSS")


def _from_status(name: str) -> float | None:
    """Return a line of Linux's description of this process in MiB."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) / 1024
    return None


def run_fresh(arguments: Sequence[str]) -> str:
    """Run Python in a process of its own; returns what it printed.

    Raises
    ------
    subprocess.CalledProcessError
        If it failed; its error output is shown first.
    """
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        done.check_returncode()
    return done.stdout


def time_fresh(jobs: Mapping[str, Sequence[str]], repeat: int) -> dict[str, Timing]:
    """Time whole processes, in turns; CPU seconds where the system tells those of children."""
    samples: dict[str, list[tuple[float, float | None]]] = {name: [] for name in jobs}
    for turn in range(repeat + 1):  # the first turn fills the disk cache
        for name, arguments in jobs.items():
            wall, cpu = time.perf_counter(), _children()
            run_fresh(arguments)
            after = _children()
            used = None if cpu is None or after is None else after - cpu
            if turn:
                samples[name].append((time.perf_counter() - wall, used))
    timings = {}
    for name, got in samples.items():
        used_all = [c for _, c in got if c is not None]
        timings[name] = Timing(
            statistics.median(w for w, _ in got), statistics.median(used_all) if used_all else None, len(got)
        )
    return timings


def _children() -> float | None:
    try:
        import resource
    except ImportError:
        return None
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def memory_of(task: str, precision: str, runtime: str | None) -> float | None:
    """Return the peak memory in MiB of a task in a process of its own."""
    printed = run_fresh(["-m", "benchmarks.fresh", task, precision, runtime or ""])
    peak = json.loads(printed.splitlines()[-1])["peak_mib"]
    return None if peak is None else float(peak)


def _plain_batch() -> None:
    """Encode and decode one of the 16 equal batches, which is where the published procedure peaks."""
    from .baseline import PlainGenerator, published_network
    from .scenes import cells_1024

    scene, generator = cells_1024(), PlainGenerator(published_network())
    tokens = generator.encode(generator.prepare(scene.image))
    shape = (scene.image.shape[0], scene.image.shape[1])
    generator.batch(tokens, shape, generator.lattice(shape)[: generator.settings.batch])


def _everything(precision: str, runtime: str | None) -> None:
    from .bench import load, segment
    from .scenes import cells_1024

    segment(load(precision, runtime), cells_1024())


def _first_mask(precision: str, runtime: str | None) -> None:
    """Load the model, embed an image and answer a click, as the first click in a session does."""
    from napari_lightsam.samples import read_sample

    from .bench import load

    segmenter = load(precision, runtime)
    embedding = segmenter.embed(read_sample("nuclei_fluorescence"), object_size=24)
    segmenter.predict(embedding, points=[(219, 383)])


def _only_load(precision: str, runtime: str | None) -> None:
    from .bench import load

    load(precision, runtime)


TASKS: dict[str, Callable[[str, str | None], Any]] = {
    "plain": lambda precision, runtime: _plain_batch(),
    "everything": _everything,
    "first-mask": _first_mask,
    "load": _only_load,
}

if __name__ == "__main__":
    TASKS[sys.argv[1]](sys.argv[2], sys.argv[3] or None)
    print(json.dumps({"peak_mib": peak_memory()}))
