"""`nlrn serve`."""

from __future__ import annotations

import ipaddress
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from . import options, parsing
from .errors import CliError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..app.engine import Engine
    from ..app.guard import Access
    from ..app.limits import Limits
    from ..inference.precision import Precision

REACH, LIMITS = "Who can reach it", "Limits"


def serve(
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on; others than loopback need --token or --insecure.",
            rich_help_panel=REACH,
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port; 0 is any that is free.", rich_help_panel=REACH)
    ] = 8642,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="NLRN_TOKEN",
            show_default=False,
            help="Secret that clients must send; better in the environment than in the list of processes.",
            rich_help_panel=REACH,
        ),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let everybody in who can reach --host.", rich_help_panel=REACH)
    ] = False,
    name: Annotated[
        list[str] | None,
        typer.Option(
            help="Another name under which browsers reach the server, such as a proxy's; can be repeated.",
            show_default=False,
            rich_help_panel=REACH,
        ),
    ] = None,
    prefix: Annotated[
        str, typer.Option(help="Path of the page, such as /nlrn, if a proxy keeps it.", rich_help_panel=REACH)
    ] = "",
    browser: Annotated[
        bool | None,
        typer.Option(
            "--browser/--no-browser", help="Open the page; by default from a terminal.", show_default=False
        ),
    ] = None,
    add_model: Annotated[
        list[Path] | None,
        typer.Option(help="A weight file to offer, by its name; can be repeated.", show_default=False),
    ] = None,
    max_upload: Annotated[str, typer.Option(help="Bytes of an upload.", rich_help_panel=LIMITS)] = "100M",
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Pixels of an image and of its result.", rich_help_panel=LIMITS)
    ] = 64_000_000,
    max_queue: Annotated[int, typer.Option(min=1, help="Jobs that wait.", rich_help_panel=LIMITS)] = 32,
    max_seconds: Annotated[
        float, typer.Option(min=0.1, help="Time of the work on a job.", rich_help_panel=LIMITS)
    ] = 1800.0,
    max_receive: Annotated[
        float,
        typer.Option(
            min=0.1,
            help="Time in which a request must arrive, and each 64 KiB of an answer be taken.",
            rich_help_panel=LIMITS,
        ),
    ] = 60.0,
    max_held: Annotated[
        str, typer.Option(help="Bytes of all uploads and results in memory.", rich_help_panel=LIMITS)
    ] = "1G",
    device: Annotated[
        list[str] | None,
        typer.Option(
            help="auto, cpu, cuda, cuda:N or mps; one job at a time on each.",
            show_default=False,
            rich_help_panel=options.COMPUTING,
        ),
    ] = None,
    precision: options.PrecisionName = "auto",
    max_memory: options.MaxMemory = None,
) -> None:
    """Serve the web page and the HTTP API on this computer.

    Images stay in the memory of this process: none is written to disk or sent elsewhere.
    """
    _check_access(host, token, insecure, prefix)
    create_app, run = _packages()
    from ..app.guard import Access
    from ..app.limits import Limits

    limits = Limits(
        upload=_bytes(max_upload, "--max-upload"),
        pixels=max_pixels,
        queue=max_queue,
        seconds=max_seconds,
        receive_seconds=max_receive,
        memory=_bytes(max_held, "--max-held"),
    )
    engine = _make_engine(limits, device or ["auto"], precision, max_memory, add_model or [])
    app = create_app(engine, Access((host, *(name or ())), token, prefix))
    listener = _listen(host, port)
    shown = "localhost" if _is_loopback(host) else host
    address = f"http://{f'[{shown}]' if ':' in shown else shown}:{listener.getsockname()[1]}{prefix}/"
    print(f"nlrn: {address}{'#token=...' if token else ''} (Ctrl-C ends it)", file=sys.stderr, flush=True)
    if browser if browser is not None else (_is_loopback(host) and sys.stderr.isatty()):
        import webbrowser

        webbrowser.open(address + (f"#token={token}" if token else ""))
    engine.start()
    try:
        run(app, listener, max_receive)
    finally:
        engine.close()


def _check_access(host: str, token: str | None, insecure: bool, prefix: str) -> None:
    """Refuses a server that everybody could use, and a path that is none."""
    if not _is_loopback(host) and not token and not insecure:
        raise CliError(f"--host {host} can be reached from elsewhere: give --token, or --insecure")
    if token is not None and len(token) < 8:
        raise CliError(f"--token must have 8 characters or more, got {len(token)}")
    if prefix and (not prefix.startswith("/") or prefix.endswith("/")):
        raise CliError(f"--prefix must begin with / and not end with it, got {prefix!r}")


def _packages() -> tuple[Callable[[Engine, Access], Any], Callable[[Any, socket.socket, float], None]]:
    """`create_app`, and the server that runs an application on a socket with so many seconds for slow clients.

    Raises:
        CliError: a package of the extra is missing.
    """
    try:
        import uvicorn

        from ..app.connection import connections
        from ..app.server import create_app
    except ImportError as error:
        raise CliError(
            f"nlrn serve needs the extra app ({error.name} is missing): python -m pip install 'nlrn[app]'"
        ) from error

    def run(app: Any, listener: socket.socket, seconds: float) -> None:
        settings = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            ws="none",
            http=connections(seconds),
            timeout_graceful_shutdown=2,
        )
        uvicorn.Server(settings).run(sockets=[listener])

    return create_app, run


def _make_engine(
    limits: Limits, devices: list[str], precision: str, max_memory: str | None, weights: list[Path]
) -> Engine:
    """The engine, with weight files under their names.

    Raises:
        CliError: a device or a file that is not there.
    """
    from ..app.engine import Engine

    for path in weights:
        if not path.is_file():
            raise CliError(f"--add-model: no file {path}")
    try:
        return Engine(
            limits,
            devices=devices,
            precision=cast("Precision", precision),
            max_memory=parsing.parse_memory(max_memory),
            files={path.stem: path for path in weights},
        )
    except ValueError as error:
        raise CliError(str(error)) from error


def _bytes(text: str, option: str) -> int:
    try:
        return parsing.parse_memory(text) or 0
    except CliError as error:
        raise CliError(str(error).replace("--max-memory", option)) from error


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        CliError: the address is not this machine's, or the port is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise CliError(f"cannot listen on {host}: {options.os_error(error)}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise CliError(f"cannot listen on {host}:{port}: {options.os_error(error)}") from error
    listener.listen(128)
    return listener
