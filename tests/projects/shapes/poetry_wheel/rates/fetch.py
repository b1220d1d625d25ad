import json
import os
import sys
from pathlib import Path

Path(sys.argv[1]).write_text(json.dumps(os.environ["WAREHOUSE_TABLES"].split()))
