"""What a training run leaves behind on its way: CSV files, pictures and, if wanted, TensorBoard events."""

from __future__ import annotations

import csv
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_lightsam.errors import ConfigError
from napari_lightsam.formats.atomic import written_whole

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt

LOSSES, CHECKS = "log.csv", "checks.csv"
PICTURES = "pictures"


def has_tensorboard() -> bool:
    """Tell whether the package is installed that writes TensorBoard's events."""
    return find_spec("tensorboard") is not None


class Journal:
    """Writes a run's figures and pictures into its folder.

    Parameters
    ----------
    folder
        Gets `log.csv` and `checks.csv`, `pictures/` and, with `tensorboard`, `tensorboard/`.
    tensorboard
        Also write events for TensorBoard.

    Raises
    ------
    ConfigError
        TensorBoard is asked for and not installed.
    """

    def __init__(self, folder: str | Path, *, tensorboard: bool = False) -> None:
        if tensorboard and not has_tensorboard():
            raise ConfigError(
                "TensorBoard is not installed: pip install 'napari-lightsam[train]', or train without it; "
                f"{LOSSES} and {CHECKS} hold the same figures."
            )
        self._folder = Path(folder)
        self._events = tensorboard
        self._writer: Any = None

    def begin(self, step: int) -> None:
        """Forget what an interrupted run wrote after the step that is gone on with."""
        _keep(self._folder / LOSSES, below=step)
        _keep(self._folder / CHECKS, below=step + 1)  # a check counts steps done, a loss its own step
        if self._events:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(self._folder / "tensorboard", purge_step=step)

    def note(self, name: str, row: Mapping[str, float]) -> None:
        """Add a row with its `step` to one of the CSV files, and to TensorBoard."""
        path = self._folder / name
        if name == CHECKS:
            _keep(path, below=int(row["step"]))  # a finished run that is given again is checked again
        fresh = not path.exists()
        with path.open("a", newline="") as stream:
            writer = csv.DictWriter(stream, list(row))
            if fresh:
                writer.writeheader()
            writer.writerow(row)
        if self._writer is not None:
            for key, value in row.items():
                if key != "step":
                    self._writer.add_scalar(f"{Path(name).stem}/{key}", value, int(row["step"]))

    def show(self, step: int, picture: npt.NDArray[np.uint8]) -> None:
        """Write a picture (H, W, 3) as PNG, and to TensorBoard."""
        from PIL import Image

        path = self._folder / PICTURES / f"step-{step:06}.png"
        path.parent.mkdir(exist_ok=True)
        with written_whole(path) as part:
            Image.fromarray(picture).save(part, format="PNG")
        if self._writer is not None:
            self._writer.add_image("answers", picture, step, dataformats="HWC")

    def close(self) -> None:
        """Write what TensorBoard still holds back."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _keep(path: Path, below: int) -> None:
    """Keep the rows of a CSV file whose step is below a number; without any, another run may have others."""
    if not path.exists():
        return
    with path.open(newline="") as stream:
        header, *rows = [*csv.reader(stream)] or [[]]
    kept = [row for row in rows if len(row) == len(header) and int(row[header.index("step")]) < below]
    if not kept:
        path.unlink()
        return
    with written_whole(path) as part, part.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *kept])
