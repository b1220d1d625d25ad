import json
from pathlib import Path

state = Path(__file__).parent / "state" / "Catalogue" / "state"
print(len(json.loads(state.read_text())), "products")
