"""`python -m pipelines run` as a user starts it, and kills it: what the tests of local runs share."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from scanloop.artifacts import KINDS, is_exempt
from scanloop.provenance import file_digest

ROOT = Path(__file__).parents[1]
ASIDE = ("external", "label_errors", "quality", "publication")
"""Made beside the loop: by commands of their own, or by intake."""
ARTIFACTS = (*(kind for kind in KINDS if kind not in ASIDE), "baseline")
TINY = """
name: tiny
seed: 3
ingest:
  source: {kind: synthetic, slices: 160, size_px: 32, labelled: 60, contrast: 1.0}
  positive_class: lesion
  test_share: 0.3
  short_side_px: 32
pretrain: {encoder: smallcnn, input_px: 32, epochs: 1, batch_size: 64}
acquire: {budget_eur: 5.5}
pseudo_label: {cross_validation: {folds: 3, repeats: 1}}
retrain: {finetune_epochs: 1, cross_validation: {folds: 3, repeats: 1}}
evaluate: {resamples: 100}
"""


@dataclass(frozen=True)
class Done:
    """A finished run: its exit code, what it printed, and how long it took."""

    code: int
    text: str
    seconds: float


def command(config: Path, output: Path, *options: str) -> list[str]:
    paths = ["--config", str(config), "--output", str(output)]
    return [sys.executable, "-m", "pipelines", "run", *paths, *options]


def run(config: Path, output: Path, *options: str, temporary: Path | None = None) -> Done:
    started = time.monotonic()
    env = os.environ | ({"TMPDIR": str(temporary)} if temporary else {})
    command_line = command(config, output, *options)
    done = subprocess.run(command_line, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    return Done(done.returncode, done.stdout + done.stderr, time.monotonic() - started)


@dataclass(frozen=True)
class Killed:
    """What became of a run whose parent was killed again and again.

    Attributes:
        last: The run that was left alone, after the last kill.
        kills: Parents that were killed while they ran.
        finished: Digests of each run that ended before its kill, of which each began in an empty folder again.
    """

    last: Done
    kills: int
    finished: list[dict[str, str]]


def run_after_kills(config: Path, output: Path, kills: int, longest: float) -> Killed:
    """Kill the parent of a run at random instants, each kill followed by the same command, until so many were killed.

    Only the parent is killed, and the next run starts at once: steps that it left behind are still at work. A run
    that ends before its instant comes is no kill: its digests are kept, and the next one starts from nothing.

    Args:
        config: Configuration of the run.
        output: Its folder.
        kills: Parents to kill.
        longest: Seconds after the start before which the kill comes.
    """
    instants = random.Random(463)
    killed, finished = 0, []
    while killed < kills:
        said = config.with_suffix(".said")
        with said.open("w") as out:
            parent = subprocess.Popen(
                command(config, output), cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            assert parent.wait(timeout=instants.uniform(0.5, longest)) == 0, said.read_text()
            finished.append(digests(output))
            shutil.rmtree(output)
        except subprocess.TimeoutExpired:
            parent.send_signal(signal.SIGKILL)
            killed += parent.wait() == -signal.SIGKILL
    return Killed(run(config, output), killed, finished)


def digests(output: Path) -> dict[str, str]:
    """Digest of every file of a run's artifacts that must be the same in every run."""
    paths = [path for name in ARTIFACTS for path in sorted((output / name).rglob("*")) if path.is_file()]
    return {str(path.relative_to(output)): file_digest(path) for path in paths if not is_exempt(path)}


def stamps(output: Path) -> dict[str, tuple[str, int]]:
    """Digest and time of change of every file of a run's artifacts, exempt ones included."""
    paths = [path for name in ARTIFACTS for path in sorted((output / name).rglob("*")) if path.is_file()]
    return {str(path.relative_to(output)): (file_digest(path), path.stat().st_mtime_ns) for path in paths}


def orphans(output: Path, patience_seconds: float) -> list[str]:
    """Command lines that name a run's folder and are still there after so long."""
    deadline = time.monotonic() + patience_seconds
    while (alive := _naming(output)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return alive


def _naming(output: Path) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it ended meanwhile
            continue
        if str(output) in line:
            found.append(line[:200])
    return found
