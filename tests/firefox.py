"""Firefox as a test asks it, through Marionette, its own protocol: JSON over a socket, nothing to install.

A message is its length, a colon, and [0, number, command, parameters]; the answer [1, number, error, result].  The
network is cut: every address but this machine's leads to a closed port.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from pathlib import Path

import psutil

PROGRAM = next(filter(None, map(shutil.which, ("firefox-esr", "firefox"))), None)
CLOSED = 9
PREFERENCES = {
    "marionette.port": 0,  # any free one; it is written into the profile
    "network.proxy.type": 1,
    **{f"network.proxy.{kind}": "127.0.0.1" for kind in ("http", "ssl")},
    **{f"network.proxy.{kind}_port": CLOSED for kind in ("http", "ssl")},
    "datareporting.policy.dataSubmissionEnabled": False,
}
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
EVALUATE = """const done = arguments[arguments.length - 1];
const found = Promise.resolve().then(() => (SOURCE)(arguments[0]));
found.then((value) => done({ value }), (error) => done({ problem: `${error}` }));"""


class Firefox:
    """``goto``, ``evaluate``, ``click`` and ``type`` in the one page of a browser without a window."""

    def __init__(self, profile: Path):
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in PREFERENCES.items()]
        (profile / "user.js").write_text("".join(lines), encoding="utf-8")
        command = [PROGRAM, "--headless", "--marionette", "--no-remote", "--profile", str(profile)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.number = 0
        self.socket = self._connect(profile / "MarionetteActivePort")
        self.socket.settimeout(180)
        self._message()  # its greeting
        self.version = self.command("WebDriver:NewSession")["capabilities"]["browserVersion"]
        self.command("WebDriver:SetTimeouts", script=120_000, pageLoad=60_000)

    def _connect(self, port: Path) -> socket.socket:
        until = time.monotonic() + 120
        while True:
            try:
                return socket.create_connection(("127.0.0.1", int(port.read_text())), timeout=10)
            except (OSError, ValueError):
                if time.monotonic() > until or self.process.poll() is not None:
                    self.process.kill()
                    raise
                time.sleep(0.2)

    def _message(self):
        length = b""
        while (byte := self.socket.recv(1)) != b":":
            length += byte
        text = b""
        while len(text) < int(length):
            text += self.socket.recv(int(length) - len(text))
        return json.loads(text)

    def command(self, name: str, **parameters):
        self.number += 1
        text = json.dumps([0, self.number, name, parameters]).encode()
        self.socket.sendall(f"{len(text)}:".encode() + text)
        _, _, error, result = self._message()
        if error:
            raise RuntimeError(f"{name}: {error['error']}: {error['message']}")
        return result

    def processor_seconds(self) -> float:
        """What all its processes have computed so far: a suite shares its cores."""
        alive = [self.process.pid, *(child.pid for child in psutil.Process(self.process.pid).children(recursive=True))]
        return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in alive)

    def goto(self, address: str) -> None:
        self.command("WebDriver:Navigate", url=address)

    def evaluate(self, source: str, argument=None):
        """What a function of one argument gives in the page, or what its promise gives."""
        found = self.command(
            "WebDriver:ExecuteAsyncScript", script=EVALUATE.replace("SOURCE", source), args=[argument]
        )["value"]
        if "problem" in found:
            raise RuntimeError(found["problem"])
        return found.get("value")

    def find(self, xpath: str, seconds: float = 60) -> str:
        """The first element that can be seen, as soon as there is one."""
        until = time.monotonic() + seconds
        while True:
            for element in self.command("WebDriver:FindElements", using="xpath", value=xpath):
                if self.command("WebDriver:IsElementDisplayed", id=element[ELEMENT])["value"]:
                    return element[ELEMENT]
            if time.monotonic() > until:
                raise TimeoutError(f"nothing to see at {xpath}")
            time.sleep(0.1)

    def click(self, text: str) -> None:
        """The button that begins with this text."""
        self.command("WebDriver:ElementClick", id=self.find(f'//button[starts-with(., "{text}")]'))

    def type(self, label: str, text: str) -> None:
        """Clear the field of this label and type; "\\ue007" is Enter, "\\ue014" the right arrow."""
        field = self.find(f'//*[@id = //label[. = "{label}"]/@for]')
        self.command("WebDriver:ElementClear", id=field)
        self.press(label, text)

    def press(self, label: str, keys: str) -> None:
        field = self.find(f'//*[@id = //label[. = "{label}"]/@for]')
        self.command("WebDriver:ElementSendKeys", id=field, text=keys)

    def text(self, xpath: str) -> str:
        return self.command("WebDriver:GetElementText", id=self.find(xpath))["value"]

    def close(self) -> None:
        self.socket.close()
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
