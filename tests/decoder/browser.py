"""A page as a reader's browser shows it: headless Chromium, where there is one."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

LOOK = """<script>
addEventListener("load", async () => {
  const plays = async (video) => {
    video.muted = true;
    await video.play();
    await new Promise((done) => video.addEventListener("timeupdate", done, {once: true}));
    return video.videoWidth > 0;
  };
  const played = await Promise.all([...document.querySelectorAll("video")].map((v) => plays(v).catch(() => false)));
  const found = {played, width: innerWidth, content: document.documentElement.scrollWidth};
  parent.postMessage(JSON.stringify(found), "*");
});
</script></body>"""
FRAME = """<body><script>addEventListener("message", (e) => { document.body.dataset.found = e.data; });</script>
<iframe src="page.html" style="width: WIDTHpx; height: 800px; border: 0"></iframe></body>"""


def look(page: str, width: int, folder: Path) -> dict[str, Any]:
    """{"played": a bool for each video, "width": of the window, "content": of what is in it, "console": lines}."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium")
    (folder / "page.html").write_text(page.replace("</body>", LOOK))
    (folder / "frame.html").write_text(FRAME.replace("WIDTH", str(width)))  # a window itself is never that narrow
    flags = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        "--virtual-time-budget=20000",
        "--autoplay-policy=no-user-gesture-required",
        f"--user-data-dir={folder / 'profile'}",
    ]
    command = [chromium, *flags, "--dump-dom", (folder / "frame.html").as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r'data-found="([^"]*)"', shown.stdout)
    assert found, shown.stderr[-2000:]
    console = [line for line in shown.stderr.splitlines() if ":CONSOLE" in line]
    return json.loads(html.unescape(found[1])) | {"console": console}
