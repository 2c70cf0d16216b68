"""Writing a project as artefacts that other tools load."""

from melo_cli.exporting.adapters import export_peft
from melo_cli.exporting.folder import ExportSummary
from melo_cli.exporting.llama_cpp.export import export_gguf
from melo_cli.exporting.merged import Floors, export_merged
from melo_cli.exporting.merging.methods import METHODS, MergeMethod
from melo_cli.exporting.merging.training_examples import ExampleSettings
from melo_cli.exporting.routed_folder import export_routed
from melo_cli.exporting.selection import chosen

__all__ = [
    "METHODS",
    "ExampleSettings",
    "ExportSummary",
    "Floors",
    "MergeMethod",
    "chosen",
    "export_gguf",
    "export_merged",
    "export_peft",
    "export_routed",
]
