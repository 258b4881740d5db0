#!/usr/bin/env python3
"""rasweb's command line."""

import os
import sys
from importlib import import_module

from rasweb.loading import loading


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "rasweb.settings")
    with loading():
        try:
            import django
            from django.core.exceptions import ImproperlyConfigured
            from django.core.management import execute_from_command_line
        except ModuleNotFoundError as missing:
            sys.exit(f"rasweb: {missing.name} is not installed. Run `make install` first.")
        try:
            import_module(os.environ["DJANGO_SETTINGS_MODULE"])
        except ImproperlyConfigured as wrong:
            sys.exit(f"rasweb: {wrong}")
        django.setup()
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
