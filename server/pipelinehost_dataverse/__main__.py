"""The program ``pipelinehost-emulator``: its wheel can be installed without what the emulator needs."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the emulator's command line, or say which extra to install."""
    try:
        from pipelinehost_dataverse.emulator.__main__ import main as run
    except ModuleNotFoundError as error:
        sys.stderr.write(
            f"pipelinehost-emulator: {error.name} is not installed.\n"
            "  Next: pip install 'pipelinehost[server]'\n"
        )
        sys.exit(1)
    sys.exit(run())


if __name__ == "__main__":
    main()
