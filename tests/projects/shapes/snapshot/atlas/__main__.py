import sqlite3
from pathlib import Path

DATABASE = Path(__file__).parent / "data" / "atlas.sqlite"

with sqlite3.connect(DATABASE) as database:
    print(*database.execute("select count(*) from places").fetchone(), "places")
