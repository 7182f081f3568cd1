"""``python -m gno``, where the folder of scripts is not on the path."""

from gno.cli import main

main()
