"""Help whose options stand in groups, as plain text of 80 columns."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

OTHERS = "Other options"


class GroupedCommand(TyperCommand):
    """A command whose help lists the options under their `rich_help_panel`, in the order of the first of each group."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes the arguments, then the groups, then all other options."""
        groups: dict[str, list[tuple[str, str]]] = {"Arguments": []}
        others: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            if parameter.param_type_name == "argument":
                groups["Arguments"].append(record)
            elif panel := getattr(parameter, "rich_help_panel", None):
                groups.setdefault(panel, []).append(record)
            else:
                others.append(record)
        for title, records in {**groups, OTHERS if len(groups) > 1 else "Options": others}.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
