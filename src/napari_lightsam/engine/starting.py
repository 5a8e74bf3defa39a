"""Which runtime runs a model, and how it is started while the caller goes on.

`runtime="auto"` takes OpenVINO wherever it is installed and computes what PyTorch computes, which is tested
on a small image; what was chosen stays for the life of a `Segmenter`.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from napari_lightsam.engine.forked import check_not_forked
from napari_lightsam.engine.openvino import OpenVinoRuntime, first_line, why_not
from napari_lightsam.engine.runtime import Device, ForwardingRuntime, Runtime, TorchRuntime
from napari_lightsam.engine.warned import tell
from napari_lightsam.errors import LightSamError

if TYPE_CHECKING:
    from concurrent.futures import Future

    from napari_lightsam.engine.config import Precision, RuntimeName
    from napari_lightsam.engine.weights import LoadedModel

__all__ = ["StartingRuntime", "make_runtime"]


def make_runtime(
    loaded: LoadedModel, device: Device, precision: Precision = "auto", runtime: RuntimeName = "auto"
) -> Runtime:
    """Choose a runtime for a model and start it.

    Parameters
    ----------
    loaded
        The model.
    device
        From `choose_device`, with the same precision and runtime.
    precision, runtime
        As in `load_segmenter`.

    Returns
    -------
    Runtime
        With the runtime `auto`, OpenVINO starts in the background, and PyTorch takes its place where it
        fails; the first use waits for the outcome.

    Raises
    ------
    ConfigError
        OpenVINO was asked for with a precision that it does not run here.
    DeviceError
        OpenVINO was asked for and cannot run this model here.
    """
    if runtime == "openvino" or precision == "int8":
        return OpenVinoRuntime(loaded, precision)
    if runtime == "torch" or device.name != "cpu":
        return TorchRuntime(loaded.model, device)
    problem = why_not(loaded, precision)
    if problem:
        return TorchRuntime(loaded.model, _for_torch(device, problem))
    return StartingRuntime(loaded, device, precision)


def _for_torch(device: Device, problem: str) -> Device:
    return replace(device, reason=f"{device.reason} PyTorch because: {problem.rstrip('.')}.")


class StartingRuntime(ForwardingRuntime):
    """OpenVINO, started in the background; PyTorch, with a warning, where it does not pass its test.

    What it takes to start (building, compiling, comparing with PyTorch) passes while the image is read.
    The first use waits, and from then on it is one and the same runtime.
    """

    def __init__(self, loaded: LoadedModel, device: Device, precision: Precision) -> None:
        self._problem = ""
        self._warning = threading.Lock()
        pool = ThreadPoolExecutor(1, "lightsam-openvino")
        self._started: Future[Runtime] = pool.submit(self._start, loaded, device, precision)
        pool.shutdown(wait=False)

    def _start(self, loaded: LoadedModel, device: Device, precision: Precision) -> Runtime:
        try:
            return OpenVinoRuntime(loaded, precision)
        except Exception as error:  # whatever it is, in a version yet to come: PyTorch can do all of it
            self._problem = str(error) if isinstance(error, LightSamError) else first_line(error)
            return TorchRuntime(loaded.model, _for_torch(device, self._problem))

    @property
    def runtime(self) -> Runtime:
        """The runtime that was started; waits for it, and warns once where it is not OpenVINO."""
        check_not_forked()
        started = self._started.result()
        with self._warning:
            problem, self._problem = self._problem, ""
        if problem:
            tell(f"{problem} PyTorch is used instead.", stacklevel=3)
        return started
