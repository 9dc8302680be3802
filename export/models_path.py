"""Puts the models' modules on the path, so that what is built is built by the code that serves it.

Import it before the first of them. Their names are unique across models.
"""

import sys
from pathlib import Path

for _folder in sorted(Path(__file__).parents[1].glob("model_repository/*/1")):
    if str(_folder) not in sys.path:
        sys.path.append(str(_folder))
