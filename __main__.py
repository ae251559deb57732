"""`python FOLDER VERB`: the command line by the pack's folder, from anywhere and with an isolated Python too."""

import sys

from comfy_scoft.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
