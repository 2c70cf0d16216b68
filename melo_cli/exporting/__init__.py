"""Writing a project as artefacts that other tools load."""

from melo_cli.exporting.adapters import export_peft
from melo_cli.exporting.folder import ExportSummary
from melo_cli.exporting.merged import export_merged
from melo_cli.exporting.routed_folder import export_routed

__all__ = ["ExportSummary", "export_merged", "export_peft", "export_routed"]
