"""The one error of this package, and the rules that it names."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_EXPORT_AGAIN = "Export the solution again from its environment and use that file unchanged."
_DOWNLOAD_AGAIN = "Download or export the package again; with git, mark *.zip as binary in .gitattributes."
_CONTACT_ORIGIN = "Do not use this file: no export looks like this. Ask where it came from."

RULES: Mapping[str, str] = MappingProxyType(
    {
        # What the file is, when it is no solution package.
        "package.empty": _DOWNLOAD_AGAIN,
        "package.size": "Split the solution: Dataverse accepts packages of up to 120 MB.",
        "package.not_zip": "Choose the .zip file that the solution export made.",
        "package.web_page": "Open the address in a browser, sign in, and download the file itself.",
        "package.git_lfs_pointer": "Run 'git lfs pull' in the repository, then use the real file.",
        "package.configuration_data": (
            "Import it with the Configuration Migration tool (pac data import); "
            "what is deployed is the solution's own .zip."
        ),
        "package.canvas_app": (
            "Add the app or flow to a solution in its environment and export that solution; "
            "this file itself is imported in Power Apps."
        ),
        "package.package_deployer": "Run 'pac package deploy', or deploy the solution .zip files inside it.",
        "package.nested_zips": "Unpack it and deploy the solution .zip inside.",
        "package.subfolder": "Zip the contents of that folder, not the folder itself.",
        "package.source_tree": "Pack the folder first: pac solution pack --folder FOLDER --zipfile FILE.zip",
        "package.not_solution": "Choose the .zip file that the solution export made.",
        "package.missing_member": _EXPORT_AGAIN,
        "package.components": "Split the solution into several smaller ones.",
        "package.dependencies": "Split the solution into several smaller ones.",
        # The zip structure.
        "zip.truncated": _DOWNLOAD_AGAIN,
        "zip.damaged": _DOWNLOAD_AGAIN,
        "zip.crc": _DOWNLOAD_AGAIN,
        "zip.deflate": _DOWNLOAD_AGAIN,
        "zip.directory": _DOWNLOAD_AGAIN,
        "zip.prepended": _CONTACT_ORIGIN,
        "zip.trailing": _CONTACT_ORIGIN,
        "zip.gap": _CONTACT_ORIGIN,
        "zip.overlap": _CONTACT_ORIGIN,
        "zip.two_endings": _CONTACT_ORIGIN,
        "zip.mismatch": _CONTACT_ORIGIN,
        "zip.size": _CONTACT_ORIGIN,
        "zip.extra": _CONTACT_ORIGIN,
        "zip.link": "Zip the files themselves, not links to them.",
        "zip.zip64": "Zip it again without zip64 records: a package of up to 120 MB does not need them.",
        "zip.multi_disk": "Join the parts into one .zip file first.",
        "zip.encrypted": "Zip it again without a password.",
        "zip.method": "Zip it again with the usual compression (deflate).",
        "zip.flags": "Zip it again with a common zip program.",
        "zip.entries": "Split the solution into several smaller ones.",
        "zip.total": "Split the solution into several smaller ones.",
        "zip.member_size": "Take the oversized file out of the solution.",
        "zip.ratio": _CONTACT_ORIGIN,
        "zip.name": _CONTACT_ORIGIN,
        "zip.reserved_name": "Rename the component whose name is reserved on Windows, and export again.",
        "zip.duplicate": _CONTACT_ORIGIN,
        # XML and JSON inside.
        "xml.doctype": _CONTACT_ORIGIN,
        "xml.encoding": "Save the file as UTF-8 and pack the solution again.",
        "xml.malformed": "Correct the file, or export the solution again.",
        "xml.size": "Split the solution into several smaller ones.",
        "xml.nodes": "Split the solution into several smaller ones.",
        "xml.namespaces": _CONTACT_ORIGIN,
        "json.malformed": "Correct the file, or export the solution again.",
        "json.size": "Split the flow into smaller ones.",
        # The manifest and customizations.
        "manifest.root": _EXPORT_AGAIN,
        "manifest.ambiguous": _EXPORT_AGAIN,
        "manifest.unique_name": _EXPORT_AGAIN,
        "manifest.version": "Give the solution a version of one to four numbers, such as 1.4.0.2.",
        "manifest.managed": "Pack it as managed or as unmanaged; 'both' exists only in source folders.",
        "manifest.publisher": _EXPORT_AGAIN,
        "manifest.number": _EXPORT_AGAIN,
        "customizations.root": _EXPORT_AGAIN,
        "customizations.variable": "Correct the environment variable in its environment, and export again.",
    }
)
"""Every rule id that a :class:`PackageError` can carry, with its usual remedy. The ids are stable."""


class PackageError(Exception):
    """The bytes are not a solution package that can be trusted.

    It is the only exception that reading a package raises on account of its content.

    Attributes:
        rule: A stable id out of :data:`RULES`, such as ``zip.overlap``.
        message: What is wrong, naming the file and the cause.
        remedy: What to do about it.
    """

    def __init__(self, rule: str, message: str, remedy: str | None = None) -> None:
        self.rule = rule
        self.message = message
        self.remedy = RULES[rule] if remedy is None else remedy
        super().__init__(rule, message, self.remedy)

    def __str__(self) -> str:
        return f"{self.message} {self.remedy} [{self.rule}]"
