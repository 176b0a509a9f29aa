"""Commands whose help has groups of options, as plain text of 80 columns, and options whose value may be left out."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

OTHERS = "Other options"
# Options that stand for the first of their values where none of these follows.
VALUES = {"--hot-pixels": ("frame", "stack")}


class GroupedCommand(TyperCommand):
    """A command whose help lists the options under their `rich_help_panel`, in the order of the first of each group."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Reads the arguments, with the values that were left out."""
        full: list[str] = []
        end = args.index("--") if "--" in args else len(args)
        for place, argument in enumerate(args[:end]):
            values = VALUES.get(argument)
            named = values is None or (place + 1 < end and args[place + 1] in values)
            full.append(argument if named or values is None else f"{argument}={values[0]}")
        return super().parse_args(ctx, full + args[end:])

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
