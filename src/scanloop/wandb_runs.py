"""Weights & Biases beside MLflow: each decision a run of the same name, with the same names of tags and metrics."""

import contextlib
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scanloop.errors import ConfigError

ENOUGH_SECONDS = 30
"""How long a server is waited for, at the start and at the end each; WANDB_INIT_TIMEOUT sets the first."""


class WandbRuns:
    """Runs in a project of Weights & Biases, the one of its entity that the environment names.

    Everything but the project comes from W&B's own environment: WANDB_MODE, WANDB_API_KEY, WANDB_BASE_URL,
    WANDB_ENTITY, WANDB_DIR. Tags (as the run's config) and metrics (as its summary) are all that is sent, with the
    versions of Python and wandb and the kind of system, which wandb always adds: no file, no console output, no source
    code, no command line, no name of the machine or its user.

    Args:
        project: Name of the project.
        group: Group of the runs.
        folder: Where W&B keeps its folder `wandb` unless WANDB_DIR says where.

    Raises:
        ConfigError: wandb is not installed, or is of a version that cannot be kept from sending more.
    """

    def __init__(self, project: str, group: str, folder: Path) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        os.environ.setdefault("WANDB_SILENT", "true")
        logging.getLogger("wandb").propagate = False  # it has a file of its own
        try:
            import wandb

            _settings(wandb)
        except ImportError as error:
            raise ConfigError(
                "promote.wandb_project needs wandb where the step runs: pip install 'scanloop[wandb]', or leave it out"
            ) from error
        except (AttributeError, ValueError) as error:  # a folder of this name; a setting that it does not know
            raise ConfigError(
                "promote.wandb_project: what is imported as wandb is another version than scanloop knows: "
                "pip install 'scanloop[wandb]' under the constraints, or leave it out"
            ) from error
        self._wandb: Any = wandb
        self._place = {"project": project, "group": group, "dir": None if "WANDB_DIR" in os.environ else str(folder)}

    def log_decision(self, digest: str, tags: Mapping[str, str], metrics: Mapping[str, float]) -> None:
        """A run that holds one decision; done again with the same digest, it is that run with the same content.

        A decision that the server does not take is kept on disk, and a line on stderr says how to send it: nothing that
        goes wrong here is an error.

        Args:
            digest: Digest of the decision, the run's id.
            tags: Facts in words.
            metrics: Figures.
        """
        try:
            self._write(digest, tags, metrics)
        except Exception as error:
            try:
                with contextlib.suppress(Exception):  # its process may have died
                    self._wandb.teardown()  # else the id counts as in use
                kept = self._write(digest, tags, metrics, mode="offline")
            except Exception as second:
                _say(f"the decision is in MLflow alone, W&B failed ({_line(error)}; then offline: {_line(second)})")
                return
            _say(f"W&B did not take the decision ({_line(error)}); to send it: wandb sync {kept}")

    def _write(
        self, digest: str, tags: Mapping[str, str], metrics: Mapping[str, float], mode: str | None = None
    ) -> Path:
        """Write the run; the folder that holds it on disk."""
        run = self._wandb.init(
            id=digest, name=f"decision-{digest[:12]}", config=dict(tags), mode=mode, resume="allow",
            reinit="create_new", settings=_settings(self._wandb), **self._place,
        )  # fmt: skip
        run.summary.update(dict(metrics))  # no history: it would grow each time
        run.finish()
        return Path(run.settings.sync_dir)


def _settings(wandb: Any) -> Any:
    """Settings under which a run holds what it is given, and nothing of the machine, the user or the program.

    Anew for each run: `wandb.init` writes its mode into them.
    """
    waiting = {} if "WANDB_INIT_TIMEOUT" in os.environ else {"init_timeout": ENOUGH_SECONDS}
    return wandb.Settings(
        silent=True, console="off", symlink=False, host="", program="scanloop", ignore_globs=("*",), disable_git=True,
        disable_code=True, disable_job_creation=True, save_code=False, x_disable_stats=True, x_disable_meta=True,
        x_disable_machine_info=True, x_save_requirements=False, finish_timeout=ENOUGH_SECONDS,
        finish_timeout_raises=True, **waiting,
    )  # fmt: skip


def _line(error: Exception) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:300]


def _say(what: str) -> None:
    print(f"promote: {what}", file=sys.stderr)
