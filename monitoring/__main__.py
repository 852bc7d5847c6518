"""`python -m monitoring`: expose the runs below a folder to Prometheus."""

import argparse
import contextlib
import logging
import sys
from pathlib import Path

from prometheus_client import generate_latest

from monitoring.exporter import registry_of, serve
from scanloop.errors import ScanloopError

EXAMPLES = """\
examples:
  python -m monitoring --runs runs                 serve http://127.0.0.1:9109/metrics
  python -m monitoring --runs runs --once          print the metrics and end
  prometheus --config.file=monitoring/prometheus.yaml --web.listen-address=127.0.0.1:9090
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code is 0, or that of the error that it prints."""
    parser = argparse.ArgumentParser(
        prog="python -m monitoring",
        description="Expose drift, spend, queue and pseudo-labels of every run below a folder as Prometheus metrics.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", type=Path, required=True, help="folder that holds the run folders, or one run folder")
    parser.add_argument("--port", type=int, default=9109, help="port to listen on (default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--once", action="store_true", help="print the metrics once instead of serving them")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        if options.once:
            sys.stdout.write(generate_latest(registry_of(options.runs)).decode())
        else:
            with contextlib.suppress(KeyboardInterrupt):
                serve(options.runs, options.port, options.host)
    except ScanloopError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
