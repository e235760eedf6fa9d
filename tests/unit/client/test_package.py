"""What importing the package costs, and what it gives."""

import subprocess
import sys

import pipelinehost


def test_importing_the_package_does_not_import_grpc() -> None:
    code = "import sys, pipelinehost; sys.exit('grpc' in sys.modules or not pipelinehost.Client)"
    assert subprocess.run([sys.executable, "-c", code], timeout=30, check=False).returncode == 0


def test_everything_that_is_promised_is_there() -> None:
    for name in pipelinehost.__all__:
        assert getattr(pipelinehost, name).__name__ == name
