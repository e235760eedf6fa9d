"""Errors as Dataverse gives them: a code that programs read and a message for people.

Codes and messages follow Microsoft's "Web service error codes" reference, as far as it names them.
"""

from __future__ import annotations

import enum


class Code(enum.IntEnum):
    """Error codes that the emulator gives, as unsigned numbers; ``signed`` is how most answers show them."""

    NOT_FOUND = 0x80040217
    UNEXPECTED = 0x80040216
    PRIVILEGE_DENIED = 0x80040220
    INVALID_ARGUMENT = 0x80040203
    INVALID_REQUEST = 0x80060888
    NO_SUCH_SEGMENT = 0x8006088A
    FLOW_CLIENT = 0x80060467
    FLOW_DEFINITION = 0x80060468
    DUPLICATE_RECORD = 0x80040237
    DUPLICATE_KEY_VALUE = 0x80060892
    UNIQUE_NAME_USED = 0x8004F023
    NOT_WELL_FORMED = 0x80048013
    INVALID_XML = 0x8004802C
    MISSING_DEPENDENCIES = 0x8004801D
    ROOT_NOT_THERE = 0x8004801F
    WRONG_PUBLISHER = 0x8004801C
    IMPORT_FAILED = 0x80048033
    EXPORT_FAILED = 0x80048035
    MANAGED_CANNOT_BE_EXPORTED = 0x80048036
    EXPORT_SOLUTION_MISSING = 0x80048037
    MANAGED_OVER_UNMANAGED = 0x80048040
    UNMANAGED_OVER_MANAGED = 0x80048041
    BAD_ZIP = 0x80048060
    HOLDING_EXISTS = 0x80048539
    INVALID_PATCH = 0x80048539
    NO_UPGRADE_READY = 0x8004853B
    WRONG_SOLUTION = 0x8004853C
    VERSION_NOT_HIGHER = 0x80048541
    UNMANAGED_BASE = 0x8004F016
    CANNOT_UNINSTALL = 0x8004F01D
    PATCH_EXISTS = 0x8004F042
    UPGRADE_FAILED = 0x8004F046
    OPERATION_RUNNING = 0x80071151
    THROTTLED = 0x80072322

    @property
    def signed(self) -> int:
        """The code as a signed 32-bit number, as ``errorcode`` columns and validation results show it."""
        return int(self) - (1 << 32)

    @property
    def text(self) -> str:
        """The code as the error envelope shows it: ``0x8004801d``."""
        return f"0x{int(self):08x}"


class DataverseError(Exception):
    """A request or an operation failed for a reason that Dataverse would give.

    Args:
        code: what programs read.
        message: names the thing, the cause and, where there is one, the remedy.
        status: HTTP status where the failure answers a request.
        retry_after: seconds for the ``Retry-After`` header, or None.
    """

    def __init__(
        self, code: Code, message: str, *, status: int = 400, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.retry_after = retry_after


def not_modelled(what: str) -> DataverseError:
    """The refusal of something that Dataverse has and this emulator has not.

    Args:
        what: the message, option or table, as the request named it.
    """
    return DataverseError(
        Code.INVALID_REQUEST, f"{what} is not modelled by this emulator; leave it out.", status=501
    )


def no_segment(name: str) -> DataverseError:
    """What nothing answers at."""
    return DataverseError(Code.NO_SUCH_SEGMENT, f"Resource not found for the segment '{name}'.", status=404)
