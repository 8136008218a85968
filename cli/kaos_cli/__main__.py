"""Allow `python -m kaos_cli`."""

from kaos_cli.main import main

main()
