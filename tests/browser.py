"""A headless Chromium, driven over its DevTools protocol through a pipe."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--remote-debugging-pipe",
)


class Browser:
    """A browser with one page."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM
        read_commands, self._write = os.pipe()
        self._read, write_answers = os.pipe()
        # Chromium reads commands from descriptor 3 and answers on 4.
        shell = f'exec "$@" 3<&{read_commands} 4>&{write_answers}'
        command = [CHROMIUM, *ARGUMENTS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", shell, "bash", *command],
            pass_fds=(read_commands, write_answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_commands)
        os.close(write_answers)
        self._buffer, self._number, self._session = b"", 0, None
        self.events: list[dict[str, Any]] = []
        targets = self.send("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self._session = self.send("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "DOM", "Log"):
            self.send(f"{domain}.enable")

    def close(self) -> None:
        self._session = None
        self.send("Browser.close")
        self._process.wait(timeout=30)
        os.close(self._read)
        os.close(self._write)

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Calls a method of the protocol; events that come meanwhile are kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            part = os.read(self._read, 1 << 20)
            assert part, "the browser has gone"
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression in the page; promises are awaited."""
        answer = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, script: str, seconds: float = 60.0) -> Any:
        """Waits until an expression is true."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"{script}: {self.run('document.body.innerText')}"
            time.sleep(0.03)
        return value

    def open(self, address: str) -> None:
        self.send("Page.navigate", url=address)
        self.wait(
            f"location.href.startsWith({address.partition('#')[0]!r}) && document.readyState == 'complete'"
        )

    def size(self, width: int, height: int, *, dark: bool = False, phone: bool = False) -> None:
        """The size of the window; a phone has two pixels of its screen for one of these, and touch."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        self.send("Emulation.setTouchEmulationEnabled", enabled=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def choose(self, *files: Path, into: str = "#files") -> None:
        """Chooses files in a file input."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=into)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def drop(self, selector: str, *files: Path) -> None:
        """Drops files onto an element, as from a file manager."""
        at, data = (
            self.place(selector),
            {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1},
        )
        for kind in ("dragEnter", "dragOver", "drop"):
            self.send("Input.dispatchDragEvent", type=kind, data=data, **at)

    def place(self, selector: str, dx: float = 0, dy: float = 0) -> dict[str, float]:
        """The middle of an element in the window, or a place beside it."""
        self.run(f"document.querySelector({selector!r}).scrollIntoView({{block: 'center'}})")
        box = self.run(f"document.querySelector({selector!r}).getBoundingClientRect().toJSON()")
        return {"x": box["x"] + box["width"] / 2 + dx, "y": box["y"] + box["height"] / 2 + dy}

    def mouse(self, kind: str, at: dict[str, float], **extra: Any) -> None:
        """An event of the mouse: Pressed, Released, Moved (with the button down if `buttons` is 1), or Wheel."""
        button = "none" if kind == "Wheel" or (kind == "Moved" and not extra.get("buttons")) else "left"
        self.send("Input.dispatchMouseEvent", type=f"mouse{kind}", button=button, clickCount=1, **at, **extra)

    def click(self, selector: str, dx: float = 0, dy: float = 0) -> None:
        """Clicks the middle of an element, or beside it."""
        at = self.place(selector, dx, dy)
        for kind in ("Pressed", "Released"):
            self.mouse(kind, at)

    def drag(self, selector: str, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Drags the mouse from one place beside the middle of an element to another one."""
        first, last = self.place(selector, *start), self.place(selector, *end)
        self.mouse("Moved", first)
        self.mouse("Pressed", first)
        self.mouse("Moved", {"x": (first["x"] + last["x"]) / 2, "y": (first["y"] + last["y"]) / 2}, buttons=1)
        self.mouse("Moved", last, buttons=1)
        self.mouse("Released", last)

    def touch(self, kind: str, *places: dict[str, float]) -> None:
        """Fingers at places of the window: Start, Move, or End without places."""
        self.send("Input.dispatchTouchEvent", type=f"touch{kind}", touchPoints=list(places))

    def tap(self, selector: str, dx: float = 0, dy: float = 0) -> None:
        """Taps the middle of an element, or beside it."""
        self.touch("Start", self.place(selector, dx, dy))
        self.touch("End")

    def tab_to(self, selector: str) -> None:
        """Presses the tabulator key until an element has the focus."""
        for _ in range(60):
            if self.run(f"document.activeElement.matches({selector!r})"):
                return
            self.key("Tab", 9)
        raise AssertionError(f"the tabulator key does not lead to {selector}")

    def event(self, name: str, seconds: float = 10.0) -> dict[str, Any]:
        """The parameters of the last event of a name, which may still have to come."""
        end = time.monotonic() + seconds
        while True:
            self.run("1")
            found = [e["params"] for e in self.events if e.get("method") == name]
            if found:
                return found[-1]
            assert time.monotonic() < end, f"no {name}"
            time.sleep(0.03)

    def faults(self) -> list[dict[str, Any]]:
        """The errors that the page met: exceptions, and what it or the browser wrote as an error.

        Answers with a status of an error are no faults of the page.
        """
        self.run("1")  # so that what was sent before has come
        found = []
        for event in self.events:
            name, parameters = event.get("method"), event.get("params", {})
            failed = name == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "assert")
            entry = parameters.get("entry", {}) if name == "Log.entryAdded" else {}
            logged = entry.get("level") == "error" and entry["source"] != "network"
            if failed or logged or name == "Runtime.exceptionThrown":
                found.append(parameters)
        return found

    def requests(self) -> set[str]:
        """The addresses that were asked for, but not those of data that the page itself has."""
        sent = [
            e["params"]["request"]["url"]
            for e in self.events
            if e.get("method") == "Network.requestWillBeSent"
        ]
        return {url for url in sent if not url.startswith(("blob:", "data:"))}

    def key(self, key: str, code: int, modifiers: int = 0) -> None:
        """Presses a key; modifiers: 1 alt, 2 control, 4 meta, 8 shift."""
        text = {"text": "\r" if key == "Enter" else key} if key == "Enter" or len(key) == 1 else {}
        for kind in ("keyDown", "keyUp"):
            extra = text if kind == "keyDown" else {}
            self.send(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                windowsVirtualKeyCode=code,
                modifiers=modifiers,
                **extra,
            )

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))
