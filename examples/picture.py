"""Draws docs/convert-and-deploy.svg, the picture in the README, from a real run: `python -m examples.picture`."""

import io
import subprocess
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from examples.demo import BIN, free_port, serving
from examples.published_models import fetch

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "convert-and-deploy.svg"

# Any monospaced font of the reader's own: nothing is loaded from elsewhere.
FORMAT = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg" xml:space="preserve">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Consolas, Menlo, monospace; font-size: {char_height}px; \
line-height: {line_height}px; white-space: pre; }}
.{unique_id}-title {{ font: 18px sans-serif; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal"><rect width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g></g></svg>
"""


def run() -> str:
    """What the command prints while a server is watching, its progress first."""
    with tempfile.TemporaryDirectory() as name:
        saved_model = fetch("basic-pitch") / "nmp"
        folder = Path(name)
        (folder / "nmp").symlink_to(saved_model)
        port = free_port()
        with serving(folder / "models", port):
            options = ["--name", "basic-pitch", "--server", f"localhost:{port}"]
            command = [str(BIN / "convert-and-deploy"), "nmp", *options]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        steps = "\n".join(line for line in done.stderr.splitlines() if line.startswith("✓"))
        text = f"$ convert-and-deploy nmp --name basic-pitch\n{steps}\n{done.stdout}"
        return text.replace(str(port), "8500")


def main() -> None:
    """Run, draw, write."""
    text = Text(run())
    text.highlight_regex(r"(?m)^✓", "green")
    text.highlight_regex(r"(?m)^(\$ .*|✓ \w+)", "bold")
    text.highlight_regex(r"\d\.\de-\d\d(?= )", "cyan")
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(text)
    PICTURE.parent.mkdir(exist_ok=True)
    svg = console.export_svg(title="from a TensorFlow SavedModel to an answered Predict", code_format=FORMAT)
    PICTURE.write_text(svg)


if __name__ == "__main__":
    main()
