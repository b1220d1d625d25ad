"""Fetches the catalogue. A real one would ask a vendor's API, and exit with an error if it cannot."""

import json
import sys

products = ["tea", "coffee", "cocoa"]
with open(sys.argv[1], "w") as state:
    json.dump(products, state)
