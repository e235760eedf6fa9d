"""The command line, ``pipelinehost``. It needs the extra: ``pip install 'pipelinehost[cli]'``."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Runs the command of this process's arguments and ends it with the documented exit code."""
    try:
        import click  # noqa: F401 - whether they are there is all that is asked
        import rich  # noqa: F401 - as above
        import ruamel.yaml  # noqa: F401 - as above
    except ModuleNotFoundError as error:
        sys.stderr.write(
            f"pipelinehost: the command line needs {error.name}, which is not installed.\n"
            "  Next: pip install 'pipelinehost[cli]'\n"
        )
        sys.exit(1)
    # grpc's own log lines would be written across the live lines; what matters comes as an exception.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from pipelinehost.cli.commands import run

    sys.exit(run())
