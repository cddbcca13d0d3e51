"""A real browser, driven over the WebDriver protocol."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")


class Browser:
    """One session of a headless browser."""

    def __init__(self, port: int) -> None:
        self._port = port
        flags = ["--headless=new", "--disable-gpu", "--window-size=1300,900", "--hide-scrollbars"]
        if os.geteuid() == 0:
            flags.append("--no-sandbox")
        options = {"binary": BROWSER, "args": flags}
        prefs = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        self._session = ""
        made = self._call("POST", "/session", {"capabilities": {"alwaysMatch": prefs}})
        self._session = f"/session/{made['sessionId']}"

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            connection.request(method, self._session + path, json.dumps(body) if body else None)
            value = json.loads(connection.getresponse().read())["value"]
        finally:
            connection.close()
        assert not (isinstance(value, dict) and "error" in value), value
        return value

    def open(self, page: Path, anchor: str = "") -> None:
        self.visit(page.as_uri() + anchor)
        self.run("document.documentElement.style.scrollBehavior = 'auto'")

    def visit(self, address: str) -> None:
        self._call("POST", "/url", {"url": "about:blank"})
        self._call("POST", "/url", {"url": address})

    def run(self, script: str, *arguments: object) -> Any:
        body = {"script": script, "args": list(arguments)}
        return self._call("POST", "/execute/sync", body)

    def click(self, selector: str) -> None:
        found = self._call("POST", "/element", {"using": "css selector", "value": selector})
        (element,) = found.values()
        self._call("POST", f"/element/{element}/click", {"id": element})

    def type(self, selector: str, text: str) -> None:
        """Types into an element; keys without a character are WebDriver's private ones."""
        found = self._call("POST", "/element", {"using": "css selector", "value": selector})
        (element,) = found.values()
        self._call("POST", f"/element/{element}/value", {"text": text})

    def press(self, keys: str) -> None:
        """Presses keys wherever the focus is."""
        strokes = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._call(
            "POST", "/actions", {"actions": [{"type": "key", "id": "k", "actions": strokes}]}
        )

    def wait(self, script: str, seconds: float = 60.0) -> Any:
        """Returns what a script returns once that is true."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"never true: {script}"
            time.sleep(0.1)
        return value

    def screenshot(self) -> bytes:
        return base64.b64decode(self._call("GET", "/screenshot"))

    def resize(self, width: int, height: int) -> None:
        sizes = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.command("Emulation.setDeviceMetricsOverride", sizes)

    def command(self, name: str, params: dict[str, object]) -> None:
        self._call("POST", "/goog/cdp/execute", {"cmd": name, "params": params})

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self._call("POST", "/se/log", {"type": "browser"})]

    def close(self) -> None:
        self._call("DELETE", "")


@pytest.fixture(scope="session")
def driver_port() -> Iterator[int]:
    if not (BROWSER and DRIVER):
        pytest.skip("needs chromium and chromedriver (Debian: chromium-driver)")
    driver = subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    port = None
    for line in driver.stdout:
        if found := re.search(r"success.* on port (\d+)", line):
            port = int(found.group(1))
            break
    assert port is not None, "chromedriver names its port"
    yield port
    driver.terminate()
    driver.wait(20)
    driver.stdout.close()


@pytest.fixture
def browser(driver_port: int) -> Iterator[Browser]:
    made = Browser(driver_port)
    yield made
    made.close()
