"""The Prometheus exporter: on each scrape it tells what the artifacts below a folder say."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from monitoring.metrics import METRICS, RUN_UNREADABLE
from monitoring.runs import Memory, Reading, Sample, find_runs, read_run
from scanloop.errors import ConfigError

logger = logging.getLogger("scanloop")


class RunCollector(Collector):
    """Metrics of every run below a folder, read anew on each scrape.

    Args:
        folder: Folder of run folders, for example `runs`.

    Raises:
        ConfigError: There is no such folder.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ConfigError(f"{folder}: no such folder; make it, or give the folder that holds the runs")
        self.folder = folder.resolve()
        self._memory: Memory = {}
        self._faults: dict[tuple[str, str], str] = {}

    def collect(self) -> Iterator[Family]:
        """Families of one scrape, each with the samples of all runs."""
        readings = self._readings()
        for metric in METRICS:
            family = Family(metric.name, metric.help, metric.kind)
            for reading in readings:
                for sample in _samples(reading):
                    if sample.metric is metric:
                        family.add_sample(
                            metric.name + sample.suffix, {"run": reading.run, **sample.labels}, sample.value
                        )
            yield family

    def _readings(self) -> list[Reading]:
        runs = find_runs(self.folder)
        for forgotten in [key for key in list(self._memory) if key[0] not in runs]:
            self._memory.pop(forgotten, None)
        readings = [read_run(run, time.time(), self._memory) for run in runs]
        faults = {(reading.run, name): why for reading in readings for name, why in reading.faults.items()}
        for (run, name), why in faults.items():
            if self._faults.get((run, name)) != why:
                logger.warning("run %s: %s cannot be read: %s", run, name, why)
        self._faults = faults
        return readings


def registry_of(folder: Path) -> CollectorRegistry:
    """Registry that holds the runs' metrics and nothing else.

    Raises:
        ConfigError: There is no such folder.
    """
    registry = CollectorRegistry()
    registry.register(RunCollector(folder))
    return registry


def serve(folder: Path, port: int, host: str) -> None:
    """Serve `/metrics` until the process is ended.

    Raises:
        ConfigError: There is no such folder, or the address is taken.
    """
    registry = registry_of(folder)
    try:
        _, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise ConfigError(f"{host}:{port}: cannot listen: {error.strerror}; give another --port or --host") from error
    logger.info("metrics of %s at http://%s:%d/metrics", folder, host, port)
    thread.join()


def _samples(reading: Reading) -> tuple[Sample, ...]:
    return (*reading.samples, Sample(RUN_UNREADABLE, float(bool(reading.faults))))
