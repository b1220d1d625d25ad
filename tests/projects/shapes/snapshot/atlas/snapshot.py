"""Reads the places of an API into a SQLite file; with an earlier one, only those that are new.

python -m atlas.snapshot NEW [PREVIOUS]
"""

import json
import os
import shutil
import sqlite3
import sys
import urllib.request


def main(new: str, previous: str = "") -> None:
    if previous and os.path.exists(previous):
        shutil.copyfile(previous, new)
    with sqlite3.connect(new) as database:
        database.execute("create table if not exists places (id integer primary key, name text)")
        (last,) = database.execute("select coalesce(max(id), 0) from places").fetchone()
        with urllib.request.urlopen(f"{os.environ['ATLAS_API']}/places?after={last}") as answer:
            places = json.load(answer)
        database.executemany("insert into places values (:id, :name)", places)


if __name__ == "__main__":
    main(*sys.argv[1:])
