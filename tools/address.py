"""Write the repository's address everywhere: `python tools/address.py NAME/REPOSITORY`.

Badges then open their notebook in Colab.
"""

import argparse
import re
from pathlib import Path

from sahelpers.config import CHECKOUT
from sahelpers.store.files import replace_text

NOTEBOOKS = CHECKOUT / "notebooks"
KINDS = (".py", ".ipynb", ".toml")  # of files there that name the address
COLAB = "https://colab.research.google.com"
BADGE = r"\[!\[Open in Colab\]\(.*?\)\]\(.*?\)|\[Colab\]\([^)]*#set-your-address\)"
ADDRESS = r"(?!.*(/\.+|\.git)$)[A-Za-z\d](-?[A-Za-z\d]){0,38}/[\w.-]{1,100}"  # GitHub's rules


def with_badges(text: str, name: str, path: Path) -> str:
    """A page with badges that open their notebook in Colab (in README, the one its row names) or,
    while the address is still OWNER's, lead to README's section that says how to set it."""

    def badge(found: re.Match[str]) -> str:
        row, notebook = found[1] or "", found[2] or path.stem
        if name.startswith("OWNER/"):
            readme = "" if path.stem == "README" else "../README.md"
            return f"{row}[Colab]({readme}#set-your-address)"
        link = f"{COLAB}/github/{name}/blob/main/notebooks/{notebook}.ipynb"
        return f"{row}[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({link})"

    return re.sub(rf"(\| \[(\w+)\].*)?(?:{BADGE})", badge, text)


def set_address(name: str) -> None:
    """Write NAME/REPOSITORY where the address of pyproject.toml stands, each file in one step and
    that one last: what was interrupted can be repeated.  SystemExit for a malformed name."""
    if not re.fullmatch(ADDRESS, name, re.ASCII):
        raise SystemExit(f"{name!r} is no address: give NAME/REPOSITORY as behind github.com/")
    project = CHECKOUT / "pyproject.toml"
    (old,) = re.findall(r'"https://github\.com/(.+)"', project.read_text(encoding="utf-8"))
    notebooks = [path for path in sorted(NOTEBOOKS.glob("*.*")) if path.suffix in KINDS]
    pages = [CHECKOUT / "README.md", CHECKOUT / "CITATION.cff", *notebooks]
    for path in (*pages, project):
        text = path.read_text(encoding="utf-8")
        text = re.sub(rf"(github(\.com)?/){re.escape(old)}(?![\w-])", rf"\g<1>{name}", text)
        replace_text(path, text := with_badges(text, name, path))
        print(f"{path.relative_to(CHECKOUT)}: {text.count(name)} times {name}")


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="NAME/REPOSITORY, as it stands behind https://github.com/")
    set_address(parser.parse_args().name)


if __name__ == "__main__":
    main()
